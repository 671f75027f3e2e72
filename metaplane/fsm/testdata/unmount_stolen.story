# A mount stays until what a writer whose session was stolen may have left in its store is removed.
> mount / file:///r caps=rdo
mount 1
> mount /m file:///s caps=rdo
mount 2
> create /m/f type=cache
session 1 fence 1 file 12 version 1 key f
> create /m/f type=cache -steal
session 2 fence 2 file 13 version 1 key f
> complete s=2 len=3 fp=A
file 13 0644 0:0 len 3 v1 PERSISTED fp A at file:///s/f
> unmount /m
busy: what a writer has left in its UFS is still to be removed
> drop s=1
ok
> unmount /m
mount 2
