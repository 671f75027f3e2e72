# Junctions: mounts of the first group that live in another one. States are 1
# joining, 2 active, 3 leaving, 0 gone.
> mount / file:///r caps=rdo
mount 1
> mkdir /data
intent 1 undecided mkdir mount 1 source data target data
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at file:///r/data
> mount /data/x s3://b group=2
mount 2
> stat /data/x
busy
> stat /data/x/f
busy
> junction id=2 from=1 to=2 serial=1 root=0x2000000000011
stale: the junction is another one by now
> junction id=2 from=1 to=2 serial=4 root=0x2000000000011
mount 2
> stat /data/x
referral
> stat /data/x/d/f
referral
> lookup 17
not found
> ls /data
x: dir 2000000000011 0755 0:0 entries 0 nlink 2 at s3://b mount
> create /data/x/f type=must -done
referral: the subtree lives in group 2
> mkdir /data/x -x
referral: the subtree lives in group 2
> mv /data/x/f /data/x/g
referral: the subtree lives in group 2
> mv /data/x/f /g
referral: the subtree lives in group 2
> create /f type=must -done
file 13 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/f
> mv /f /data/x/f
cross-mount
> mv /data /elsewhere
invalid: there is a mount point below it
> rm /data -r
invalid: there is a mount point below it
# What is above it is guarded here.
> chmod /data mode=0700
intent 2 undecided setattr mount 1 source data
> decide i=2
dir 11 0700 0:0 entries 1 nlink 3 at file:///r/data
> as 5:5
> stat /data/x/f
permission denied
> as 0:0
# Its store counts among those that are mounted, and it stays in its group.
> mount /y s3://b/c
invalid: its URI overlaps the one mounted at /data/x
> mount /data/x s3://b group=3 -u
exists: already a mount point, and it stays in its group
> mount /data/x s3://b -u -ro
mount 2
> junction id=2 from=1 to=2 serial=4
stale: the junction is another one by now
> state
files 1 dirs 3 sessions 0 intents 0 mounts 2 trash 0
> junction id=2 from=1 to=2 serial=19
mount 2
> reopen
> stat /data/x/f
referral
# Unmounting frees the name when the other group is empty.
> unmount /data/x/f
referral: the subtree lives in group 2
> unmount /data/x
mount 2
> unmount /data/x
mount 2
> stat /data/x/f
busy
> mount /data/x s3://b -u
exists: already a mount point, and it stays in its group
> junction id=2 from=3 to=2 serial=23
mount 2
> stat /data/x/f
referral
> unmount /data/x
mount 2
> junction id=2 from=3 to=0 serial=23
stale: the junction is another one by now
> junction id=2 from=3 to=0 serial=27
mount 2
> junction id=2 from=3 to=0 serial=27
not found: no such junction
> stat /data/x
missing [x] below 11, key data/x pending 0
> mount /data/x s3://b
mount 3
> mkdir /has
intent 3 undecided mkdir mount 1 source has target has
> decide i=3
dir 15 0755 0:0 entries 0 nlink 2 at file:///r/has
> mount /has s3://c group=2
exists: a mount in a group of its own makes its directory itself: remove this one first
> mount /n s3://c group=2 id=9
invalid: a new mount has no number
> state
files 1 dirs 5 sessions 0 intents 0 mounts 2 trash 1

# Another attempt of the same request: what the earlier one comes to is refused.
> mount /again s3://e group=2
mount 4
> junction id=4 from=1 to=2 root=0x2000000000014
mount 4
> unmount /again
mount 4
> junction id=4 from=3 to=3
mount 4
> junction id=4 from=3 to=2 serial=38
stale: the junction is another one by now
> junction id=4 from=3 to=0 serial=38
stale: the junction is another one by now
> junction id=4 from=3 to=3 serial=38
stale: the junction is another one by now
> stat /again
busy
> state
files 1 dirs 6 sessions 0 intents 0 mounts 3 trash 1
> junction id=4 from=3 to=2 serial=39
mount 4
> stat /again
referral
