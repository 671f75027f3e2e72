# No name of a file is behind a junction that the file is not behind.
> mount / file:///r caps=rdo
mount 1
> mkdir /data
intent 1 undecided mkdir mount 1 source data target data
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at file:///r/data
> mount /data/x s3://b group=2
mount 2
> junction id=2 from=1 to=2 serial=4 root=0x2000000000011
mount 2
> create /f type=must -done
file 13 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/f
> ln /f /data/x/f
cross-mount
> mv /f /data/x/f -x
cross-mount
> ln /data/x/f /f
referral: the subtree lives in group 2
