-- {tenant, dag_id, paused, now, idem} -> {status, version, paused, reply}

local p = cmsgpack.unpack(ARGV[1])
local t, d, wanted = p[1], p[2], p[3] and '1' or '0'
local key = 'dag:' .. t .. ':' .. d
local status, kept = stored(p[5])
if status == 'replayed' then
  local old = cmsgpack.unpack(kept)
  return { 'replayed', old[1], old[2], old[3] }
elseif status then
  return { status, 0, '0', '' }
end
local dag = call('HMGET', key, 'version', 'paused', 'next_fire', 'due')
if not dag[1] then
  return { 'missing', 0, '0', '' }
end
local version, fire = tonumber(dag[1]), tonumber(dag[3] or '0')
if dag[2] ~= wanted then
  call('HSET', key, 'paused', wanted, 'updated', p[4])
  if p[3] then
    call('ZREM', 'cron', t .. '|' .. d)
  elseif fire ~= 0 then
    call('ZADD', 'cron', dag[4] or fire, t .. '|' .. d)
  end
  sched[1] = { k = 'dag', tenant = t, dag_id = d, version = version, paused = p[3] }
  flush()
end
if p[5] then store(p[5], cmsgpack.pack({ version, wanted, p[5][3] })) end
return { 'ok', version, wanted, '' }
