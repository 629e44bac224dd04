-- Fire {tenant, dag_id, scheduler_epoch, expected, next, next due, last, runs, dropped {reason, count, last}, replaces,
-- counts} -> {status, msgpack list of {run_id, state, how}}

local f = cmsgpack.unpack(ARGV[1])
local at, versions = f[1] .. ':' .. f[2], {}
local key = 'dag:' .. at
if scheduler_epoch_now() ~= f[3] then
  return { 'fenced', '' }
end
local dag = call('HMGET', key, 'next_fire', 'paused')
if tonumber(dag[1] or '0') ~= f[4] then
  return { 'stale', '' }
elseif dag[2] == '1' then
  return { 'paused', '' }
end
for _, run in ipairs(f[8]) do
  if not holds(run, versions) then
    return { 'changed', '' }
  end
end
for _, id in ipairs(f[10]) do
  if call('SISMEMBER', 'live:' .. at, id) == 1 then add_member('replaced', id) end
end
local runs = {}
for n, run in ipairs(f[8]) do
  runs[n] = stand(run)
end
call('HSET', key, 'next_fire', f[5], 'due', f[6], 'fired', f[7])
if f[5] == 0 then
  call('ZREM', 'cron', f[1] .. '|' .. f[2])
else
  call('ZADD', 'cron', f[6], f[1] .. '|' .. f[2])
end
for _, drop in ipairs(f[9]) do
  add(key, 'dropped|' .. drop[1], drop[2])
  call('HSET', key, 'dropped_at', drop[3], 'dropped_why', drop[1])
end
for _, count in ipairs(f[11]) do
  add('metrics', count[1], count[2])
end
flush_queue()
flush()
return { 'ok', cmsgpack.pack(runs) }
