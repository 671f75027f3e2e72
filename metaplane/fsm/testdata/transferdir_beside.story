# A directory goes to another one that lives in the same group: the group stages for
# itself, and what it has staged ends with the intent.
> mount / file:///r caps=rdox
mount 1
> mkdir /a
intent 1 undecided mkdir mount 1 source a target a
> decide i=1 -q
ok
> mkdir /b
intent 2 undecided mkdir mount 1 source b target b
> decide i=2 -q
ok
> mv /a away=12/a
intent 3 undecided transfer mount 1 source a
> stage tx=3 -self
ok
> decide i=3 -early kind=12 msg=restless
busy: restless
> stage tx=3 f:f:F
stale: no such directory is being moved here any more
> state
files 0 dirs 4 sessions 0 intents 0 mounts 1 trash 1
> sweep
ok
> state
files 0 dirs 3 sessions 0 intents 0 mounts 1 trash 0
