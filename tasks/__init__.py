"""What runs. A task is a doorway of a few lines: it opens its transaction and calls one function of `db`.

    reservations.expire      close due holds and put their units back on sale; Beat, every 5 s
    reservations.release     give the units of one hold back
    reservations.confirm     sell the units of one hold
    inventory.reconcile      check that every unit is accounted for; Beat, every 5 min
    jobs.prune               remove jobs that ended long enough ago; Beat, every minute

Task names are contracts: other services send them, so they outlive modules. Arguments are primary keys or other JSON
values, never ORM objects.
"""
