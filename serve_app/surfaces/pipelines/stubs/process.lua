---@meta

---Programs. A runner that may start none raises an error on every call.
---@class processlib
process = {}

---@alias processlevel "debug"|"info"|"warning"|"error"

---@class processoptions
---@field cmd string the program
---@field args? string[] its arguments
---@field env? table<string, string> variables of its environment, beside those of the pipeline
---@field cwd? string directory in the workspace in which it starts
---@field capture_stdout? boolean give back what it writes to standard output
---@field capture_stderr? boolean give back what it writes to standard error
---@field stdout_level? processlevel level of the log lines made of standard output; "info" if not given
---@field stderr_level? processlevel level of the log lines made of standard error; "error" if not given

---@class processresult
---@field exit_code integer
---@field stdout string
---@field stderr string

---Run a program and wait for its end. An exit code other than 0 raises no error: look at it.
---@param options processoptions
---@return processresult
function process.run(options) end
