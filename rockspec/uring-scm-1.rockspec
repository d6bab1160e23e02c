rockspec_format = "3.0"
package = "uring"
version = "scm-1"

source = {
  url = "git+https://github.com/uring-lua/uring.git",
  branch = "main",
}

description = {
  summary = "io_uring for Lua: files, sockets and tasks in straight-line code",
  detailed = [[
A C core that owns the ring and everything lent to the kernel, and a Lua module
on top: prepare, submit and await any operation, structured tasks with
cancellation, and files and sockets that feel like Lua's own io.
Needs Linux 6.1 and liburing 2.3, or newer.]],
  homepage = "https://github.com/uring-lua/uring",
  license = "MIT",
  labels = { "async", "io", "network", "linux" },
}

supported_platforms = { "linux" }

dependencies = { "lua ~> 5.4" }

external_dependencies = {
  LIBURING = { header = "liburing.h", library = "uring" },
}

-- Every file is named, as a rockspec must; `make lint` compares the lists with
-- what is there.
build = {
  type = "builtin",
  modules = {
    ["uring.address"] = "lua/uring/address.lua",
    ["uring.blame"] = "lua/uring/blame.lua",
    ["uring.connect"] = "lua/uring/connect.lua",
    ["uring.custom"] = "lua/uring/custom.lua",
    ["uring.descriptor"] = "lua/uring/descriptor.lua",
    ["uring.file"] = "lua/uring/file.lua",
    ["uring"] = "lua/uring/init.lua",
    ["uring.listener"] = "lua/uring/listener.lua",
    ["uring.operation_loop"] = "lua/uring/operation_loop.lua",
    ["uring.options"] = "lua/uring/options.lua",
    ["uring.process"] = "lua/uring/process.lua",
    ["uring.process_request"] = "lua/uring/process_request.lua",
    ["uring.reader"] = "lua/uring/reader.lua",
    ["uring.readiness"] = "lua/uring/readiness.lua",
    ["uring.resolve"] = "lua/uring/resolve.lua",
    ["uring.scope"] = "lua/uring/scope.lua",
    ["uring.server"] = "lua/uring/server.lua",
    ["uring.signal_names"] = "lua/uring/signal_names.lua",
    ["uring.signals"] = "lua/uring/signals.lua",
    ["uring.socket"] = "lua/uring/socket.lua",
    ["uring.socket_options"] = "lua/uring/socket_options.lua",
    ["uring.stream"] = "lua/uring/stream.lua",
    ["uring.udp"] = "lua/uring/udp.lua",
    ["uring.waiter"] = "lua/uring/waiter.lua",
    ["uring.core"] = {
      sources = {
        "c/args.c",
        "c/args_memory.c",
        "c/args_options.c",
        "c/args_raw.c",
        "c/args_struct.c",
        "c/buffer.c",
        "c/calls.c",
        "c/call.c",
        "c/channel.c",
        "c/child.c",
        "c/child_spawn.c",
        "c/constants.c",
        "c/core.c",
        "c/coroutine.c",
        "c/direct.c",
        "c/driver_fault.c",
        "c/driver_kernel.c",
        "c/errors.c",
        "c/event.c",
        "c/gather.c",
        "c/locals.c",
        "c/loop.c",
        "c/mapped.c",
        "c/message.c",
        "c/multishot.c",
        "c/near.c",
        "c/op.c",
        "c/operation.c",
        "c/options.c",
        "c/outcome.c",
        "c/passing.c",
        "c/place.c",
        "c/pool.c",
        "c/pool_object.c",
        "c/prepare.c",
        "c/provided.c",
        "c/registered.c",
        "c/resolve.c",
        "c/results.c",
        "c/ring.c",
        "c/ring_again.c",
        "c/ring_cancel.c",
        "c/ring_close.c",
        "c/ring_hand.c",
        "c/ring_object.c",
        "c/ring_options.c",
        "c/ring_queue.c",
        "c/ring_tuning.c",
        "c/rows.c",
        "c/scope.c",
        "c/signals.c",
        "c/skip.c",
        "c/sockaddr.c",
        "c/sockopt.c",
        "c/sync.c",
        "c/system.c",
        "c/task.c",
        "c/task_list.c",
        "c/task_object.c",
        "c/threads.c",
        "c/timer.c",
        "c/timer_object.c",
        "c/worker.c",
      },
      defines = { "_GNU_SOURCE" },
      libraries = { "uring" },
      incdirs = { "$(LIBURING_INCDIR)" },
      libdirs = { "$(LIBURING_LIBDIR)" },
    },
  },
}

test = {
  type = "command",
  command = "make test",
}
