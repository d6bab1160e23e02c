local helper = require "spec.support.helper"
local uring = require "uring"
describe("nop", function()
  helper.watch(before_each, after_each)
  it("completes", function() assert.are.equal(0, uring.op.nop()) end)
end)
