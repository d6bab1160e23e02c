--- What `uring` has of sockets, put together.
--
-- Loaded when the first of these functions is used.

local connect = require "uring.connect"
local listener = require "uring.listener"
local passing = require "uring.passing"
local socket = require "uring.socket"
local socket_options = require "uring.socket_options"
local stream = require "uring.stream"
local transfer = require "uring.transfer"
local udp = require "uring.udp"

passing.extend(stream.methods)
socket_options.extend(stream.methods)

return {
  listen = listener.listen;
  connect = connect.connect;
  udp = udp.udp;
  pipe = socket.pipe;
  socketpair = socket.socketpair;
  transfer = transfer.transfer;
}
