---@meta

---The parameters that the job was launched with, as strings: `true` and `false`, numbers without a trailing `.0`.
---Inputs that the pipeline gives a default are always there.
---@class inputlib
input = {}

---A parameter, or `default` where there is none.
---@param name string
---@return string?
---@overload fun(name: string, default: string): string
function input.get(name) end

---A parameter that must be there; raises an error where there is none.
---@param name string
---@return string
function input.require(name) end

---Is there such a parameter?
---@param name string
---@return boolean
function input.has(name) end

---Every parameter by its name.
---@return table<string, string>
function input.all() end

---The names of all parameters.
---@return string[]
function input.keys() end
