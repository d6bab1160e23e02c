--- Documentation of what is implemented in C: the functions and objects of
-- `uring.core`.  There is no code here, and nothing loads this; `help` at the prompt and
-- `make doc` read it.
-- @module uring.objects

---
-- The default ring, on which tasks run, is used by `uring.prepare`, `uring.submit` and so
-- on; the same are methods of a ring that `uring.ring` opened.
-- @type Ring

--- Opens a ring of the program's own.
-- @function uring.ring
-- @tab[opt] options `entries` (256), `cq_entries`, `backlog` (4096), `sqpoll`, `sq_thread_idle` (seconds),
--   `sq_thread_cpu`, `attach` (a ring), `iopoll`, `drain_timeout` (10 seconds)
-- @treturn Ring nil, message, errno where the system refuses it; the message says what to do
-- @raise unknown options, wrong types

--- Prepares an operation: checks the arguments, lends the memory and fills an SQE.  Nothing reaches
-- the kernel before `submit`, an await or the next turn.
-- @function Ring:prepare
-- @string name of the operation as liburing has it, or an object with a method `prepare`
-- @param ... what liburing's `io_uring_prep_` function takes, without the SQE; a table of options last
-- @treturn Operation
-- @raise wrong arguments; memory that is lent already

--- Links operations that are prepared: each starts when the one before it has succeeded.
-- @function Ring:link
-- @tab operations a list
-- @raise operations that cannot be linked

--- Hands over what is prepared.
-- @function Ring:submit
-- @treturn int how many operations the kernel took; nil, message, errno

--- Which operations the kernel has.
-- @function Ring:probe
-- @string[opt] name
-- @return whether it has that one; without a name a table, name → boolean

--- What the ring is: its driver, kernel, sizes, and variants found out so far.
-- @function Ring:features
-- @treturn table

--- Counters.  Totals, but for `backlog`, `in_flight`, `tasks`, `timers` and `bytes_lent`.
-- @function Ring:stats
-- @treturn table

--- A descriptor that is readable when there is something to reap.
-- @function Ring:fd
-- @treturn int nil, message, errno

--- Cancels what is in flight and waits until the kernel is done with it, for at most `drain_timeout`.
-- Idempotent.
-- @function Ring:close

--- One `io_uring_enter`: hands over, waits, reaps nothing.
-- @function Ring:enter
-- @int[opt] to_submit at most so many (all)
-- @int[opt=0] min_complete completions to wait for
-- @int[opt] flags
-- @treturn int how many the kernel took; nil, message, errno

--- The oldest completion that has not been reaped.
-- @function Ring:peek
-- @treturn int result, flags, user_data, and the operation's name; nil: there is none

--- Gives completions to their operations.
-- @function Ring:advance
-- @int[opt=1] n
-- @treturn int how many there were

--- One turn, for a loop that is not ours: hands over, waits, reaps, runs the tasks that are ready.
-- @function Ring:step
-- @number[opt] seconds to wait at most; nil: until something happens
-- @treturn number in how many seconds it wants to be called again; nil: when `fd` is readable

--- An operation whose results are the messages that other rings send: len, data.
-- @function Ring:messages
-- @treturn Operation
-- @raise where there is one already

--- Opens a pool: buffers that the kernel takes one of when data is there.
-- @function Ring:pool
-- @tab[opt] options `buffers` (256), `size` (4096 bytes), `incremental`, `outgoing`
-- @treturn Pool nil, message, errno
-- @raise unknown options, wrong types

--- Registers Buffers, for operations with fixed buffers.
-- @function Ring:register_buffers
-- @tab buffers a list
-- @treturn bool true; nil, message, errno

--- Ends the registration of Buffers.
-- @function Ring:unregister_buffers
-- @treturn bool true; nil, message, errno

--- Registers descriptors, for the option `fixed_file`.
-- @function Ring:register_files
-- @param files a list of descriptors (-1: an empty slot), or how many slots
-- @treturn bool true; nil, message, errno

--- Changes registered descriptors.
-- @function Ring:register_files_update
-- @tab files a list of descriptors; -1 empties a slot
-- @int[opt=0] first slot
-- @treturn int how many; nil, message, errno

--- Of which slots the kernel chooses when it is to choose one.
-- @function Ring:register_file_alloc_range
-- @int first
-- @int count
-- @treturn bool true; nil, message, errno

--- Ends the registration of descriptors.
-- @function Ring:unregister_files
-- @treturn bool true; nil, message, errno

--- Lets the kernel look the ring's descriptor up once.
-- @function Ring:register_ring_fd
-- @treturn bool true; nil, message, errno

--- Takes `register_ring_fd` back.
-- @function Ring:unregister_ring_fd
-- @treturn bool true; nil, message, errno

--- How many worker threads of the kernel there may be; 0 or nil leaves a number as it is.
-- @function Ring:iowq_max_workers
-- @int[opt] bounded those for files and block devices
-- @int[opt] unbounded those for all else
-- @treturn int what both were; nil, message, errno

--- On which processors worker threads run that start from now on.
-- @function Ring:iowq_affinity
-- @tab[opt] processors a list; nil: on any
-- @treturn bool true; nil, message, errno

--- Does a thread of the kernel submit?
-- @function Ring:uses_sqpoll
-- @treturn bool

--- Has that thread gone to sleep?
-- @function Ring:needs_wakeup
-- @treturn bool

--- Wakes that thread.
-- @function Ring:wake
-- @treturn bool true; nil, message, errno

---
-- The handle of an operation, which `prepare` returns.  Dropped, the operation is cancelled.
-- @type Operation

--- Waits for the result.  In a task, suspends it; elsewhere turns the loop.
-- @function Operation:await
-- @treturn int 0 or more, and what the operation adds; nil, message, errno.  Of a multishot operation
--   the next result

--- Asks for cancellation.  An operation that is faster delivers its result.
-- @function Operation:cancel
-- @treturn Cancellation

--- How far it is.
-- @function Operation:status
-- @treturn string "prepared", "submitted", "cancelling" or "done"

--- Iterates over the results of a multishot operation.
-- @function Operation:results
-- @treturn function

--- The flags (`const.IORING_CQE_F_…`) of the result that was handed out last.
-- @function Operation:flags
-- @treturn int

--- Waits until what a zero-copy send has lent has come back.
-- @function Operation:notification
-- @treturn bool true

--- What its completions are marked with.
-- @function Operation:user_data
-- @treturn int nil once it is done

---
-- What `cancel` of an operation returns.
-- @type Cancellation

--- Waits until the operation has ended.
-- @function Cancellation:await
-- @treturn string "cancelled"; or "completed" and the operation's results

--- How far the operation is, see there.
-- @function Cancellation:status
-- @treturn string

---
-- Memory that can be lent to the kernel.  While it is, it can be neither read nor changed.
-- @type Buffer

--- Makes a Buffer.
-- @function uring.buffer
-- @param what its size in bytes, or a string with its contents
-- @treturn Buffer
-- @raise no memory

--- Bytes i to j, positions as in `string.sub`.
-- @function Buffer:get
-- @int[opt=1] i
-- @int[opt=-1] j
-- @treturn string
-- @raise while it is lent

--- Writes a string at a position.
-- @function Buffer:set
-- @int i
-- @string s
-- @treturn Buffer itself
-- @raise while it is lent; where there is no room

--- Fills bytes i to j.
-- @function Buffer:fill
-- @int[opt=0] byte
-- @int[opt=1] i
-- @int[opt=-1] j
-- @treturn Buffer itself
-- @raise while it is lent

--- Finds a string, plainly.
-- @function Buffer:find
-- @string s
-- @int[opt=1] i where to begin
-- @int[opt=-1] j where to end
-- @treturn int the first and the last position; nil: it is not there
-- @raise while it is lent

--- A Buffer over the same bytes.
-- @function Buffer:slice
-- @int[opt=1] i
-- @int[opt=-1] j
-- @treturn Buffer

--- Whose it is.
-- @function Buffer:status
-- @treturn string "owned" or "lent"

--- Lets go of the memory before the Buffer is collected; one of a pool goes back.
-- @function Buffer:close

---
-- Buffers that the kernel takes one of when data is there.
-- @type Pool

--- Puts data into a pool that was opened with `outgoing`, to be sent behind what was pushed before.
-- @function Pool:push
-- @param data a string or a Buffer
-- @treturn bool true; false: there is no room now

--- Counters: `buffers`, `size`, `provided` (the kernel has them), `out` (the program does).
-- @function Pool:stats
-- @treturn table

--- The number that the kernel knows it by, for raw operations.
-- @function Pool:group
-- @treturn int

--- Closes it; Buffers that are out stay good.
-- @function Pool:close

---
-- A function that runs beside others: what `spawn` returns.
-- @type Task

--- Waits until the task has ended.
-- @function Task:await
-- @return its results
-- @raise its error; `uring.cancelled` if it was cancelled

--- Asks it to end: `uring.cancelled` is raised where it awaits, once its operation has ended.  Returns at
-- once; idempotent.
-- @function Task:cancel

--- How it is.
-- @function Task:status
-- @treturn string "ready", "running", "waiting", "returned", "failed" or "cancelled"

--- Where it failed, or where it stands.
-- @function Task:traceback
-- @treturn string

--- Names it, for messages and `uring.tasks`.
-- @function Task:name
-- @string[opt] name without it: tells the name
-- @return the task; without an argument its name or nil

--- The running task.
-- @function uring.current
-- @treturn Task nil outside of tasks

--- Suspends the task.  Outside of tasks the loop turns meanwhile.
-- @function uring.sleep
-- @number seconds
-- @raise negative seconds

--- Lets all who are ready run first.
-- @function uring.yield

--- Calls a function while cancellation is held back; it strikes at the first await after that.
-- @function uring.shield
-- @func fn
-- @param ... its arguments
-- @return its results

--- Seconds of the monotonic clock.
-- @function uring.now
-- @treturn number

--- Who hears of a failed task that belongs to no scope and that nobody awaits.  By default the error is
-- written to standard error.
-- @function uring.on_error
-- @func handler gets the error and its traceback

--- Is a descriptor a terminal?
-- @function uring.isatty
-- @int fd
-- @treturn bool

---
-- The owner of tasks: what `uring.scope` gives its function.
-- @type Scope

--- Starts a task in the scope.
-- @function Scope:spawn
-- @func fn
-- @param ... its arguments
-- @treturn Task
-- @raise when the scope has been left

--- Cancels all that is in it.
-- @function Scope:cancel

--- Cancels all that is in it, so long from now.
-- @function Scope:deadline
-- @number seconds

--- Those that failed, in order.
-- @function Scope:failures
-- @treturn table a list of { error =, traceback =, task = }

--- What has happened to it.
-- @function Scope:status
-- @treturn string "open", "expired", "cancelled" or "failed"

---
-- A deadline that can be moved: what `uring.timer` returns.
-- @type Timer

--- Waits for the deadline.
-- @function Timer:wait
-- @treturn number `now()` when it has come; nil, "closed", ECANCELED if it is closed meanwhile

--- Moves the deadline.
-- @function Timer:set
-- @number[opt] deadline a time of `now`; nil: never

--- Moves the deadline to so long from now.
-- @function Timer:after
-- @number seconds

--- The deadline.
-- @function Timer:deadline
-- @treturn number a time of `now`; nil: never

--- Whoever waits gets nil, "closed".  Idempotent.
-- @function Timer:close

---
-- Values on their way from task to task: what `uring.sync.channel` returns.
-- @type Channel

--- Makes a channel.
-- @function uring.sync.channel
-- @int[opt=0] capacity values that wait in it; 0: who sends waits until somebody receives
-- @treturn Channel

--- Sends a value; waits until somebody has it or there is room.
-- @function Channel:send
-- @param value not nil
-- @treturn bool true; nil, "closed"

--- Sends a value if nobody has to wait for that.
-- @function Channel:try_send
-- @param value not nil
-- @treturn bool whether it was sent; nil, "closed"

--- Receives a value; waits until there is one.
-- @function Channel:receive
-- @return the value; nil, "closed" when it is closed and empty

--- Receives a value if there is one.
-- @function Channel:try_receive
-- @return the value; nil: there is none now; nil, "closed"

--- Iterates over what comes, until the channel is closed and empty.
-- @function Channel:values
-- @treturn function

--- Nothing more is sent; what waits in it can still be received.
-- @function Channel:close

--- Has it been closed?
-- @function Channel:is_closed
-- @treturn bool

--- Waits for the first of several channels that can go on.
-- @function uring.sync.select
-- @tab cases a list: a channel, to receive from it; `{ channel, value }`, to send
-- @treturn int which case it was; and the value, true if it was sent, or nil, "closed"

---
-- Permits: what `uring.sync.semaphore` returns.
-- @type Semaphore

--- Makes a semaphore.
-- @function uring.sync.semaphore
-- @int permits
-- @treturn Semaphore

--- Takes a permit; waits until there is one.
-- @function Semaphore:acquire
-- @treturn Semaphore itself; as a `<close>` variable it gives the permit back

--- Takes a permit if there is one.
-- @function Semaphore:try_acquire
-- @treturn Semaphore nil: there is none

--- Gives permits back; who has waited longest gets them.
-- @function Semaphore:release
-- @int[opt=1] n

--- How many are free.
-- @function Semaphore:permits
-- @treturn int

---
-- A lock: what `uring.sync.mutex` returns.
-- @type Mutex

--- Makes a mutex.
-- @function uring.sync.mutex
-- @treturn Mutex

--- Locks it; waits until it is free.
-- @function Mutex:lock
-- @treturn Mutex itself; as a `<close>` variable it is unlocked

--- Locks it if it is free.
-- @function Mutex:try_lock
-- @treturn Mutex nil: it is not

--- Unlocks it.
-- @function Mutex:unlock
-- @raise unless the task that calls has locked it

--- Is it locked?
-- @function Mutex:is_locked
-- @treturn bool

---
-- Something to wait for: what `uring.sync.condition` returns.
-- @type Condition

--- Makes a condition.
-- @function uring.sync.condition
-- @treturn Condition

--- Waits until it is notified.
-- @function Condition:wait

--- Wakes those that have waited longest.
-- @function Condition:notify
-- @int[opt=1] n

--- Wakes all who wait.
-- @function Condition:notify_all

---
-- A number to come down to 0: what `uring.sync.waitgroup` returns.
-- @type Waitgroup

--- Makes a wait group.
-- @function uring.sync.waitgroup
-- @int[opt=0] n
-- @treturn Waitgroup

--- So many more to wait for.
-- @function Waitgroup:add
-- @int[opt=1] n negative: fewer

--- One fewer to wait for.
-- @function Waitgroup:done

--- Waits until there is nothing left to wait for.
-- @function Waitgroup:wait

--- How many are still to come.
-- @function Waitgroup:count
-- @treturn int

---
-- The functions of Lua's `coroutine`; an await inside of a coroutine passes through to the task.
-- @section coroutine

--- As `coroutine.create`.
-- @function uring.coroutine.create
-- @func fn
-- @treturn thread

--- As `coroutine.resume`; an await inside suspends the task, and resume returns when the coroutine yields.
-- @function uring.coroutine.resume
-- @tparam thread co
-- @param ... values
-- @treturn bool true and values; false, error

--- As `coroutine.wrap`.
-- @function uring.coroutine.wrap
-- @func fn
-- @treturn function

--- As `coroutine.yield`: to whoever has resumed the coroutine.
-- @function uring.coroutine.yield
-- @param ... values
-- @return what it is resumed with

--- As `coroutine.status`.
-- @function uring.coroutine.status
-- @tparam thread co
-- @treturn string

--- As `coroutine.running`.
-- @function uring.coroutine.running
-- @treturn thread and whether it is the main one

--- As `coroutine.isyieldable`.
-- @function uring.coroutine.isyieldable
-- @treturn bool

--- As `coroutine.close`.
-- @function uring.coroutine.close
-- @tparam thread co
-- @treturn bool true; false, error

---
-- The default files of `uring.io`.
-- @section io

--- Reads from the default input: as `io.input():read(...)`.
-- @function uring.io.read
-- @param ... formats, as of `file:read`
-- @return one result a format; nil at the end; nil, message, errno
-- @raise wrong formats; where the default input is closed

--- Writes to the default output: as `io.output():write(...)`.
-- @function uring.io.write
-- @param ... strings, numbers, Buffers
-- @treturn Stream the default output; nil, message, errno, bytes written
-- @raise wrong types; where the default output is closed

---
-- Sockets, pipes, terminals and files.  Of several tasks that read, or write, one does so at a time, in their
-- order; at a file reading and writing count alike.  A read that fails, is cancelled or comes too late has taken
-- nothing.
-- @type Stream

--- Reads as `file:read` does.
-- @function Stream:read
-- @param ... formats: "l" (a line, also without a format), "L" (with its newline), "n" (a number), "a" (everything up
--   to the end), a number of bytes
-- @return one result a format, up to the first that is nil, as all are at the end; nil, message, errno (EMSGSIZE
--   where a line or "a" is past its limit)

--- Iterates over lines, or over what the formats ask for.
-- @function Stream:lines
-- @param ... formats as for `read`
-- @treturn function
-- @raise in the loop, where reading fails

--- Whatever is there, as soon as there is something.
-- @function Stream:read_some
-- @int[opt=65536] max bytes at most
-- @treturn string nil at the end; nil, message, errno

--- Reads up to a delimiter, which belongs to the result.
-- @function Stream:read_until
-- @string delimiter of any length, but not empty
-- @int[opt] max bytes at most, the delimiter included (the limit of a line)
-- @treturn string at the end of the stream what is left, without a delimiter; nil if that is nothing; nil, message,
--   errno (EMSGSIZE where there is none within `max` bytes)

--- Receives into a Buffer, once.
-- @function Stream:recv
-- @tparam Buffer buffer
-- @treturn int bytes, 0 at the end; nil, message, errno

--- Writes all its arguments.  Several are sent from where they are, by one vector.
-- @function Stream:write
-- @param ... strings, numbers, Buffers
-- @treturn Stream nil, message, errno, how many bytes of them were written
-- @raise another type, and nothing is written

--- Writes what is buffered; at a file that is read, gives back what was read ahead.
-- @function Stream:flush
-- @treturn Stream nil, message, errno

--- Sets how writing is buffered: regular files are, fully; everything else is not.
-- @function Stream:setvbuf
-- @string mode "no", "full" or "line" (written where there is a newline)
-- @int[opt=16384] size bytes that are kept
-- @treturn bool true; nil, message, errno

--- Sets and tells the position of a file, as `file:seek` does.
-- @function Stream:seek
-- @string[opt="cur"] whence "set", "cur" or "end"
-- @int[opt=0] offset
-- @treturn int the position from the beginning; nil, message, errno

--- Limits the time of every single read and write on it: nil, "timeout", ETIMEDOUT past it, and nothing is lost.
-- `uring.timeout(seconds, stream.read, stream, "l")` limits one call.
-- @function Stream:timeout
-- @number[opt] seconds nil: without a limit
-- @treturn Stream

--- The descriptor, which stays the stream's.
-- @function Stream:fd
-- @treturn int

return {}
