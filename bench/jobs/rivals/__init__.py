"""The rivals: systems that people use for jobs instead, each with the settings that made it fastest here."""
