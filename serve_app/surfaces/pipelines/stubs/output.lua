---@meta

---Values that later stages can read. What is there at the end is the `output` of the job's result; null when nothing is.
---@class outputlib
output = {}

---@alias outputvalue string|number|boolean|table

---Keep a value under a name, in place of an earlier one.
---@param name string
---@param value outputvalue
function output.set(name, value) end

---A value, or nil where there is none.
---@param name string
---@return outputvalue?
function output.get(name) end

---A value that must be there; raises an error where there is none.
---@param name string
---@return outputvalue
function output.require(name) end

---Is there a value of this name?
---@param name string
---@return boolean
function output.has(name) end

---Every value by its name.
---@return table<string, outputvalue>
function output.all() end

---The names of all values.
---@return string[]
function output.keys() end

---Forget a value.
---@param name string
function output.clear(name) end

---Forget every value.
function output.clear_all() end
