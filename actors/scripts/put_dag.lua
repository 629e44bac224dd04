-- PutDag {tenant, dag_id, definition, hash, owner, now, base_version, next_fire, max_dags, idem,
-- due, follows, makes}
-- -> {status, version, paused, reply}

local p = cmsgpack.unpack(ARGV[1])
local t, d = p[1], p[2]
local key, listed = 'dag:' .. t .. ':' .. d, 'dags:' .. t
local follows, makes = p[12], p[13]

local function listed_in(key, field)
  local found = {}
  for each in string.gmatch(call('HGET', key, field) or '', '%S+') do
    found[#found + 1] = each
  end
  return found
end

-- what the DAG starts by itself: its successes, and the assets that its tasks update
local function starters(dag)
  local found = { 'after/' .. dag }
  for _, asset in ipairs(dag == d and makes or listed_in('dag:' .. t .. ':' .. dag, 'makes')) do
    found[#found + 1] = 'asset/' .. asset
  end
  return found
end

-- the way on which the DAG would start itself, or nil
local function circle()
  local wanted, before, line = {}, { [d] = '' }, { d }
  for _, source in ipairs(follows) do wanted[source] = true end
  for n = 1, #follows > 0 and math.huge or 0 do
    local dag = line[n]
    if not dag then
      return nil
    end
    for _, source in ipairs(starters(dag)) do
      if wanted[source] then
        local way = d
        while dag ~= '' do
          way, dag = dag .. ' ' .. way, before[dag]
        end
        return way
      end
      for _, follower in ipairs(call('SMEMBERS', 'fol:' .. t .. ':' .. source)) do
        if not before[follower] then
          before[follower] = dag
          line[#line + 1] = follower
        end
      end
    end
  end
end

-- the lists that name the DAG are those of its new version
local function relist(field, before, now)
  local listed_under = field == 'follows' and 'fol:' or 'mk:'
  for _, each in ipairs(before) do
    call('SREM', listed_under .. t .. ':' .. each, d)
  end
  for _, each in ipairs(now) do
    call('SADD', listed_under .. t .. ':' .. each, d)
  end
  if #now > 0 then
    call('HSET', key, field, table.concat(now, ' '))
  elseif #before > 0 then
    call('HDEL', key, field)
  end
end

-- an asset is known while some DAG names it
local function know_assets(names)
  for _, asset in ipairs(names) do
    local named = call('EXISTS', 'mk:' .. t .. ':' .. asset) + call('EXISTS', 'fol:' .. t .. ':asset/' .. asset)
    call(named > 0 and 'SADD' or 'SREM', 'assets:' .. t, asset)
  end
end

local function connect()
  local followed, made = listed_in(key, 'follows'), listed_in(key, 'makes')
  if #follows + #makes + #followed + #made == 0 then
    return
  end
  relist('follows', followed, follows)
  relist('makes', made, makes)
  for _, list in ipairs({ followed, follows }) do
    for _, source in ipairs(list) do
      local asset = string.match(source, '^asset/(.*)')
      if asset then know_assets({ asset }) end
    end
  end
  know_assets(made)
  know_assets(makes)
end

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
  local way = circle()
  if way then
    return { 'circle', version, paused, way }
  end
  connect()
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
