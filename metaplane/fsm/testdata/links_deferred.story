# Hard links over an object store: the content moves to the next name in the
# background, and the caller does not wait.
> mount / s3://b
mount 1
> create /f type=cache -done
intent 1 undecided put_empty mount 1 target f
> decide i=1 fp=F1 -q
ok
> ln /f /g
file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at s3://b/f
> ln /f /h
file 11 0644 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at s3://b/f
> rm /f
intent 2 deferred move mount 1 source f target g want F1
> tree /
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at s3://b/f pending
h: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at s3://b/f pending
> rm /g
busy: an earlier change is still on its way to the UFS (intent 2)
> mv /h /i
file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at s3://b/f pending
> cutover i=2 ino=0x11 want=F1 fp=F2
file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g pending
> finish i=2
ok
> tree /
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
i: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
# Where nothing is in the UFS, nothing has to move.
> create /m type=must -done
file 12 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/m
> ln /m /n
file 12 0644 0:0 len 0 v1 NOT_PERSISTED nlink 2 at s3://b/m
> rm /m
ok
> tree /
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
i: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
n: file 12 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/n
> create /a type=async -done
file 13 0644 0:0 len 0 v1 TO_BE_PERSISTED at s3://b/a
> ln /a /b
file 13 0644 0:0 len 0 v1 TO_BE_PERSISTED nlink 2 at s3://b/a
> rm /a
ok
> prepare ino=0x13
intent 3 undecided persist mount 1 target b
> rm /b
busy: an earlier change is still on its way to the UFS (intent 3)
> persisted i=3 fp=A1
file 13 0644 0:0 len 0 v1 PERSISTED fp A1 at s3://b/b
> tree /
b: file 13 0644 0:0 len 0 v1 PERSISTED fp A1 at s3://b/b
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
i: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
n: file 12 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/n
# What the UFS has no more has no name either.
> ln /b /c
file 13 0644 0:0 len 0 v1 PERSISTED nlink 2 fp A1 at s3://b/b
> sync / gone:b
created 0 changed 0 removed 1 skipped 0
> tree /
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
i: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
n: file 12 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/n
# A link of a link.
> create /l link=target
link 14 0644 0:0 len 6 v1 NOT_PERSISTED at s3://b/l -> target
> ln /l /l2
link 14 0644 0:0 len 6 v1 NOT_PERSISTED nlink 2 at s3://b/l -> target
> rm /l
ok
> tree /
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
i: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
l2: link 14 0644 0:0 len 6 v1 NOT_PERSISTED at s3://b/l2 -> target
n: file 12 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/n
> reopen
> tree /
g: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
i: file 11 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F2 at s3://b/g
l2: link 14 0644 0:0 len 6 v1 NOT_PERSISTED at s3://b/l2 -> target
n: file 12 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/n
> unmount /
invalid: the root mount stays
> state
files 3 dirs 1 sessions 0 intents 0 mounts 1 trash 0
