# Two names change places.
> mount /l file:///r caps=rdox -p
mount 1
> mount /s s3://b -p
mount 2
> mkdir /l/d -q
intent 1 undecided mkdir mount 1 source d target d
> decide i=1 -q
ok
> create /l/d/in type=cache -done
intent 2 undecided put_empty mount 1 target d/in
> decide i=2 fp=I1 -q
ok
> create /l/f type=cache -done
intent 3 undecided put_empty mount 1 target f
> decide i=3 fp=F1 -q
ok
> mv /l/f /l/no -x
not found
> mv /l/d /l/d/in -x
invalid: one is below the other, or a mount point is in them
> mv /l/f /l/d/in -x -n
invalid: to exchange and not to replace exclude each other
> mv /l/f /l/f -x
ok
# A file and a directory.
> mv /l/f /l/d -x
intent 4 undecided exchange mount 1 source f target d
> mv /l/f /l/y
busy: an earlier change is still on its way to the UFS (intent 4)
> create /l/f/in2 type=must -done
not a directory
> decide i=4 -v
file 15 0644 0:0 len 0 v1 PERSISTED fp F1 at file:///r/d
event EVENT_ENTRY ino 13 11/f
event EVENT_ENTRY ino 15 11/d
> tree /l
d: file 15 0644 0:0 len 0 v1 PERSISTED fp F1 at file:///r/d
f: dir 13 0755 0:0 entries 1 nlink 2 at file:///r/f
  in: file 14 0644 0:0 len 0 v1 PERSISTED fp I1 at file:///r/f/in
# One that is in the store, and one that is not.
> create /l/m type=must -done
file 16 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/m
> mv /l/m /l/d -x
intent 5 undecided rename mount 1 source d target m want F1
> decide i=5
file 16 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/d
> tree /l
d: file 16 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/d
f: dir 13 0755 0:0 entries 1 nlink 2 at file:///r/f
  in: file 14 0644 0:0 len 0 v1 PERSISTED fp I1 at file:///r/f/in
m: file 15 0644 0:0 len 0 v1 PERSISTED fp F1 at file:///r/m
# A name of several: the content goes with the home only.
> ln /l/m /l/alias
file 15 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at file:///r/m
> mv /l/alias /l/f/in -x
intent 6 undecided rename mount 1 source f/in target alias want I1
> decide i=6
file 15 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at file:///r/m
> tree /l
alias: file 14 0644 0:0 len 0 v1 PERSISTED fp I1 at file:///r/alias
d: file 16 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/d
f: dir 13 0755 0:0 entries 1 nlink 2 at file:///r/f
  in: file 15 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at file:///r/m
m: file 15 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at file:///r/m
# An object store has no such call.
> create /s/a type=cache -done
intent 7 undecided put_empty mount 2 target a
> decide i=7 fp=A1 -q
ok
> create /s/b type=cache -done
intent 8 undecided put_empty mount 2 target b
> decide i=8 fp=B1 -q
ok
> mv /s/a /s/b -x
unsupported: the store cannot exchange two names in one call
> create /s/m type=must -done
file 19 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/m
> mv /s/m /s/b -x
intent 9 deferred move mount 2 source b target m want B1
file 19 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/b pending
> tree /s
a: file 17 0644 0:0 len 0 v1 PERSISTED fp A1 at s3://b/a
b: file 19 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/b pending
m: file 18 0644 0:0 len 0 v1 PERSISTED fp B1 at s3://b/b pending
> mv /s/a /l/f -x
cross-mount
# Sticky: who may not take away may not exchange.
> mkdir /t mode=01777 -q
ok
> as 1:1
> create /t/mine type=must -done
file 1b 0644 1:1 len 0 v1 NOT_PERSISTED
> as 2:2
> create /t/yours type=must -done
file 1c 0644 2:2 len 0 v1 NOT_PERSISTED
> mv /t/mine /t/yours -x
permission denied: the directory is sticky and the entry another's
> rm /t/mine
permission denied: the directory is sticky and the entry another's
> ln /t/mine /t/hard
file 1b 0644 1:1 len 0 v1 NOT_PERSISTED nlink 2
> rm /t/hard
permission denied: the directory is sticky and the entry another's
> as root
> mv /t/mine /t/yours -x
file 1b 0644 1:1 len 0 v1 NOT_PERSISTED nlink 2
> tree /t
hard: file 1b 0644 1:1 len 0 v1 NOT_PERSISTED nlink 2
mine: file 1c 0644 2:2 len 0 v1 NOT_PERSISTED
yours: file 1b 0644 1:1 len 0 v1 NOT_PERSISTED nlink 2
