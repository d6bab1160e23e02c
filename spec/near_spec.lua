local core = require "uring.core"

describe("names that a misspelt one may have meant", function()
  it("are found among any number, the nearest first", function()
    local names = {}
    for i = 1, 400 do
      names[i] = "name" .. i
    end
    names[3], names[390] = "colour", "colours"
    assert.are.equal(" (did you mean 'colour', 'colours'?)", core.near("color", names))
    assert.are.equal(" (did you mean 'name399', 'name39', 'name99'?)", core.near("name399", names))
    assert.are.equal("", core.near("zzzzzz", names))
    assert.are.equal("", core.near("color", {}))
  end)

  it("are those that it is a part of, too", function()
    assert.are.equal(" (did you mean 'register_files'?)", core.near("files", { "register_files", "fd" }))
    assert.are.equal("", core.near("fi", { "register_files" }))
  end)
end)
