---@meta

---Containers in which programs run.
---@class containerlib
container = {}

---Within `fn`, `process.run` uses this image. Calls may stand in each other: the innermost counts.
---@param image string for instance "docker.io/library/python:3.12"
---@param fn fun()
function container.with(image, fn) end
