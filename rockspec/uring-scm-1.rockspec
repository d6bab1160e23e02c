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
    ["uring.arguments"] = "lua/uring/arguments.lua",
    ["uring.command"] = "lua/uring/command.lua",
    ["uring.connect"] = "lua/uring/connect.lua",
    ["uring.custom"] = "lua/uring/custom.lua",
    ["uring.descriptor"] = "lua/uring/descriptor.lua",
    ["uring.doc"] = "lua/uring/doc.lua",
    ["uring.doc.markdown"] = "lua/uring/doc/markdown.lua",
    ["uring.doc.types"] = "lua/uring/doc/types.lua",
    ["uring.dump"] = "lua/uring/dump.lua",
    ["uring.file"] = "lua/uring/file.lua",
    ["uring.help"] = "lua/uring/help.lua",
    ["uring.fs"] = "lua/uring/fs.lua",
    ["uring.fs_arguments"] = "lua/uring/fs_arguments.lua",
    ["uring.fs_contents"] = "lua/uring/fs_contents.lua",
    ["uring.fs_copy"] = "lua/uring/fs_copy.lua",
    ["uring.fs_path"] = "lua/uring/fs_path.lua",
    ["uring.fs_remove"] = "lua/uring/fs_remove.lua",
    ["uring.fs_walk"] = "lua/uring/fs_walk.lua",
    ["uring.fs_watch"] = "lua/uring/fs_watch.lua",
    ["uring"] = "lua/uring/init.lua",
    ["uring.io"] = "lua/uring/io.lua",
    ["uring.objects"] = "lua/uring/objects.lua",
    ["uring.listener"] = "lua/uring/listener.lua",
    ["uring.operation_loop"] = "lua/uring/operation_loop.lua",
    ["uring.options"] = "lua/uring/options.lua",
    ["uring.passing"] = "lua/uring/passing.lua",
    ["uring.process"] = "lua/uring/process.lua",
    ["uring.process_request"] = "lua/uring/process_request.lua",
    ["uring.prompt.chunk"] = "lua/uring/prompt/chunk.lua",
    ["uring.prompt.commands"] = "lua/uring/prompt/commands.lua",
    ["uring.prompt.complete"] = "lua/uring/prompt/complete.lua",
    ["uring.prompt.history"] = "lua/uring/prompt/history.lua",
    ["uring.prompt"] = "lua/uring/prompt/init.lua",
    ["uring.prompt.output"] = "lua/uring/prompt/output.lua",
    ["uring.prompt.terminal"] = "lua/uring/prompt/terminal.lua",
    ["uring.readiness"] = "lua/uring/readiness.lua",
    ["uring.resolve"] = "lua/uring/resolve.lua",
    ["uring.replaced"] = "lua/uring/replaced.lua",
    ["uring.scope"] = "lua/uring/scope.lua",
    ["uring.server"] = "lua/uring/server.lua",
    ["uring.signal_names"] = "lua/uring/signal_names.lua",
    ["uring.signals"] = "lua/uring/signals.lua",
    ["uring.socket"] = "lua/uring/socket.lua",
    ["uring.sockets"] = "lua/uring/sockets.lua",
    ["uring.socket_options"] = "lua/uring/socket_options.lua",
    ["uring.stream"] = "lua/uring/stream.lua",
    ["uring.transfer"] = "lua/uring/transfer.lua",
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
        "c/call.c",
        "c/calls.c",
        "c/channel.c",
        "c/child.c",
        "c/child_spawn.c",
        "c/constants.c",
        "c/copy.c",
        "c/copy_file.c",
        "c/core.c",
        "c/coroutine.c",
        "c/direct.c",
        "c/directory.c",
        "c/driver_fault.c",
        "c/driver_kernel.c",
        "c/errors.c",
        "c/event.c",
        "c/formats.c",
        "c/gather.c",
        "c/input.c",
        "c/interrupt.c",
        "c/io.c",
        "c/locals.c",
        "c/loop.c",
        "c/mapped.c",
        "c/message.c",
        "c/multishot.c",
        "c/near.c",
        "c/numeral.c",
        "c/op.c",
        "c/operation.c",
        "c/operation_list.c",
        "c/options.c",
        "c/outcome.c",
        "c/passing.c",
        "c/path_call.c",
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
        "c/select.c",
        "c/signals.c",
        "c/skip.c",
        "c/sockaddr.c",
        "c/sockopt.c",
        "c/statx.c",
        "c/stream.c",
        "c/stream_call.c",
        "c/stream_flush.c",
        "c/stream_io.c",
        "c/stream_pass.c",
        "c/stream_read.c",
        "c/stream_tie.c",
        "c/stream_wait.c",
        "c/stream_write.c",
        "c/sync.c",
        "c/system.c",
        "c/task.c",
        "c/task_list.c",
        "c/task_object.c",
        "c/threads.c",
        "c/timer.c",
        "c/timer_object.c",
        "c/unwritten.c",
        "c/worker.c",
      },
      defines = { "_GNU_SOURCE" },
      libraries = { "uring" },
      incdirs = { "$(LIBURING_INCDIR)" },
      libdirs = { "$(LIBURING_LIBDIR)" },
    },
    -- looks for the library when it is loaded: readline need not be there
    ["uring.readline"] = {
      sources = { "c/prompt/library.c", "c/prompt/readline.c" },
      defines = { "_GNU_SOURCE" },
      libraries = { "dl" },
    },
  },
  install = {
    bin = { uring = "lua/bin/uring" },
  },
}

-- Type stubs for LuaLS, in the rock's own folder: made from what was installed.
hooks = {
  post_install = [[cd "$(PREFIX)" && mkdir -p types && up=../../../../.. &&
    export LUA_PATH="$up/share/lua/5.4/?.lua;$up/share/lua/5.4/?/init.lua" LUA_CPATH="$up/lib/lua/5.4/?.so" &&
    "$(LUA)" -e 'io.open("types/uring.d.lua", "wb"):write(require "uring.doc.types".text(require "uring"))' ||
    echo "no type stubs were made; uring --types prints them"]],
}

test = {
  type = "command",
  command = "make test",
}
