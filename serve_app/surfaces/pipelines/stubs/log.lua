---@meta

---Lines in the log of the job. They are shown while the job runs, with the time at which they were written.
---@class loglib
log = {}

---What helps to find a mistake.
---@param message string
function log.debug(message) end

---What goes on.
---@param message string
function log.info(message) end

---What is not as it should be, and does not stop the job.
---@param message string
function log.warning(message) end

---What went wrong. The job goes on: to end it, raise an error.
---@param message string
function log.error(message) end
