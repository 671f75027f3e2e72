# A request is executed once, whatever its client sends again.
> mount / file:///r caps=rdo
mount 1
> call client=9 seq=1
> create /a type=must -done
file 11 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a
> call client=9 seq=1
> create /a type=must -done
file 11 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a
> call client=9 seq=2
> create /a type=must -done
exists
> call client=9 seq=3
> mkdir /d
intent 1 undecided mkdir mount 1 source d target d
> call client=9 seq=3
> mkdir /d
intent 1 undecided mkdir mount 1 source d target d
> call client=9 seq=4
> mkdir /d
busy: an earlier change is still on its way to the UFS (intent 1)
> decide i=1
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/d
> call client=9 seq=3
> mkdir /d
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/d
> call client=9 seq=4
> mkdir /d
exists
> reopen
> call client=9 seq=3
> mkdir /d
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/d
> call client=9 seq=5 acked=4
> mkdir /d -x
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/d
> call client=9 seq=3
> mkdir /d
session expired: the request is older than the window of remembered results
> call client=9 seq=2000
> mkdir /d -x
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/d
> call client=9 seq=976
> mkdir /d -x
session expired: the request is older than the window of remembered results
> call client=9 seq=977
> mkdir /d -x
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/d
> call client=10 seq=7 acked=7
> mkdir /d -x
session expired: the client is not known any more: start again with a new client id
> call client=9
> mkdir /d -x
invalid: a client's command without a sequence number
