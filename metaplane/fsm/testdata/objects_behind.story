# Group 2: what comes to a store that cannot rename in one call is copied.
> mount /a/p s3://b/r/a/p group=2 id=2 serial=7 part=1
mount 2
> sync /a/p f:have:h -range -loaded
created 1 changed 0 removed 0 skipped 0
> transfer /a/p/f tx=5 fp=abc len=268435457
decided 5: cross-mount its store cannot rename in one call, and copies no more than 256 MiB to another group
> transfer /a/p/have tx=6 fp=abc -x
decided 6: unsupported the store cannot exchange two names in one call
> transfer /a/p/have tx=7 fp=abc
intent 562949953421313 undecided receive mount 2 target have want abc
> decide i=0x2000000000001 fp=copied -v
file 2000000000014 0644 5:0 len 3 v1 PERSISTED fp copied at s3://b/r/a/p/have
decided 7: ok, as 2000000000014
event EVENT_ENTRY ino 2000000000013 2000000000012/have
event EVENT_ENTRY ino 2000000000014 2000000000012/have
effect 1 file 2000000000013 version 0 id 0 
> stat /a/p/have
file 2000000000014 0644 5:0 len 3 v1 PERSISTED fp copied at s3://b/r/a/p/have
# Of an exchange with a link the object here is copied to the other place, and what is left here goes.
> transfer /a/p/have tx=8 link=t -x
intent 562949953421314 undecided receive mount 2 target have have copied
> decide i=0x2000000000002 fp=again -v
link 2000000000015 0644 5:0 len 1 v1 NOT_PERSISTED at s3://b/r/a/p/have pending -> t
decided 8: ok, as 2000000000015, for 2000000000014 len 3 again
event EVENT_ENTRY ino 2000000000014 2000000000012/have
event EVENT_ENTRY ino 2000000000015 2000000000012/have
effect 6 file 0 version 0 id 562949953421315 
effect 1 file 2000000000014 version 0 id 0 
> stat /a/p/have
link 2000000000015 0644 5:0 len 1 v1 NOT_PERSISTED at s3://b/r/a/p/have pending -> t
> state
files 1 dirs 3 sessions 0 intents 1 mounts 1 trash 0
intent 562949953421315 deferred left mount 2 source have want copied
> transfer /a/p/have tx=9 fp=z
busy: an earlier change is still on its way to the UFS (intent 562949953421315)
> reopen
> finish i=0x2000000000003
ok
> transfer /a/p/have tx=9 fp=z -x
intent 562949953421316 undecided receive mount 2 target have want z
> decide i=0x2000000000004 fp=zz
file 2000000000016 0644 5:0 len 1 v1 PERSISTED fp zz at s3://b/r/a/p/have
decided 9: ok, as 2000000000016, for 2000000000015 len 1 t
> stat /a/p/have
file 2000000000016 0644 5:0 len 1 v1 PERSISTED fp zz at s3://b/r/a/p/have
> state
files 1 dirs 3 sessions 0 intents 0 mounts 1 trash 0
