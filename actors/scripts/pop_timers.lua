-- {scheduler_epoch, now, limit} -> how many, or -1 - current epoch

local p = cmsgpack.unpack(ARGV[1])
local epoch = scheduler_epoch_now()
if epoch ~= p[1] then
  return -1 - math.abs(epoch)
end
local due = call('ZRANGEBYSCORE', 'timers', '-inf', p[2], 'WITHSCORES', 'LIMIT', 0, p[3])
local inboxes = {}
for n = 1, #due, 2 do
  local kind, id = string.match(due[n], '^(%a+)|(.*)$')
  local r = call('HMGET', 'run:' .. id, 'own', 'st')
  put(scored, 'timers', due[n], false)
  if r[2] and not TERMINAL[r[2]] then
    if text(r[1]) ~= '' then
      inboxes[r[1]] = inboxes[r[1]] or {}
      table.insert(inboxes[r[1]], { k = 'timer', run_id = id, kind = kind, due_ms = tonumber(due[n + 1]) })
    else
      sched[#sched + 1] = { k = 'wake', run_id = id, reason = kind }
    end
  end
end
for owner, items in pairs(inboxes) do
  call('XADD', 'in:' .. owner, '*', 'e', cjson.encode(items))
end
flush()
return #due / 2
