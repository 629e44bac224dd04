-- PutDag {tenant, dag_id, definition, hash, owner, now, base_version, next_fire, max_dags, idem,
-- due}
-- -> {status, version, paused, reply}

local p = cmsgpack.unpack(ARGV[1])
local t, d = p[1], p[2]
local key, listed = 'dag:' .. t .. ':' .. d, 'dags:' .. t
local status, kept = stored(p[10])
if status == 'replayed' then
  local old = cmsgpack.unpack(kept)
  return { 'replayed', old[1], old[2], old[3] }
elseif status then
  return { status, 0, '0', '' }
end
local dag = call('HMGET', key, 'version', 'hash', 'paused', 'next_fire', 'due')
local version, paused = tonumber(dag[1] or '0'), dag[3] or '0'
if version ~= p[7] then
  return { 'changed', version, paused, '' }
elseif version == 0 and not hidden(d) and call('ZCARD', listed) >= p[9] then
  return { 'full', 0, '0', '' }
end
if dag[2] ~= p[4] then
  version = version + 1
  call('HSET', key, 'version', version, 'paused', paused, 'hash', p[4], 'updated', p[6], 'owner', p[5])
  call('HSETNX', key, 'created', p[6])
  call('HSET', 'dagv:' .. t .. ':' .. d, version, p[3])
  if not hidden(d) then call('ZADD', listed, 0, d) end
  local fire = p[8] or tonumber(dag[4] or '0')
  local due = p[11] or tonumber(dag[5] or fire)
  call('HSET', key, 'next_fire', fire, 'due', due)
  if fire == 0 then
    call('ZREM', 'cron', t .. '|' .. d)
  elseif paused ~= '1' then
    call('ZADD', 'cron', due, t .. '|' .. d)
  end
  sched[1] = { k = 'dag', tenant = t, dag_id = d, version = version, paused = paused == '1' }
  flush()
end
if p[10] then store(p[10], cmsgpack.pack({ version, paused, p[10][3] })) end
return { 'ok', version, paused, '' }
