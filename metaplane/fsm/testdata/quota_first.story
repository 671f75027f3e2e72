# The first quota of all counts what began before there was any.
> mount / file:///r caps=rdo
mount 1
> sync / f:f:abc d:d -range -loaded
created 2 changed 0 removed 0 skipped 0
> mv /f /d/f
intent 1 undecided rename mount 1 source f target d/f want abc
> quota /d bytes=1
ok
> usage /d
bytes 0 files 0 dirs 0
quota of /d: bytes 0 of 1, held 3; inodes 0 of 0, held 1
> decide i=1
file 11 0644 0:0 len 3 v1 PERSISTED fp abc at file:///r/d/f
> usage /d
bytes 3 files 1 dirs 0
quota of /d: bytes 3 of 1, held 0; inodes 1 of 0, held 0
