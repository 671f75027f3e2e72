# A file is made with its parents while the first of them is just being made as
# a file: both would be there under one name.
> mount / file:///r caps=rdo
mount 1
> create /a type=through -done
intent 1 undecided put_empty mount 1 target a
> create /a/m type=through -p
busy: an earlier change is still on its way to the UFS (intent 1)
> decide i=1
file 11 0644 0:0 len 0 v1 PERSISTED at file:///r/a
> create /a/m type=through -p
not a directory
> state
files 1 dirs 1 sessions 0 intents 0 mounts 1 trash 0
