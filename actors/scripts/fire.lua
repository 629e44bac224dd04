-- Fire {tenant, dag_id, scheduler_epoch, expected, next, run, counts} -> {status, run_id, how}

local f = cmsgpack.unpack(ARGV[1])
local key = 'dag:' .. f[1] .. ':' .. f[2]
if tonumber(call('HGET', 'owner:scheduler', 'epoch') or '0') ~= f[3] then
  return { 'fenced', '', '' }
end
local dag = call('HMGET', key, 'next_fire', 'paused')
if tonumber(dag[1] or '0') ~= f[4] then
  return { 'stale', '', '' }
elseif dag[2] == '1' then
  return { 'paused', '', '' }
elseif f[6] and not holds(f[6], {}) then
  return { 'changed', '', '' }
end
local stands = { '', '', '' }
if f[6] then stands = stand(f[6]) end
call('HSET', key, 'next_fire', f[5], 'fired', f[4])
if f[5] == 0 then
  call('ZREM', 'cron', f[1] .. '|' .. f[2])
else
  call('ZADD', 'cron', f[5], f[1] .. '|' .. f[2])
end
for _, count in ipairs(f[7]) do
  add('metrics', count[1], count[2])
end
flush_queue()
flush()
return { 'ok', stands[1], stands[3] }
