-- list of Creation {runs, idem, quota {key, most}, once {tenant, name}, archived {{tenant, dag_id, count}, …}}
--   -> msgpack list of {status, {{run_id, state, how}, …}, reply}

local versions, answers = {}, {}
local QUOTA_TTL_MS = 40 * 86400000

-- the quota's count, to be raised; nil when what is sent again has been counted
local function counted(c)
  local q = c[3]
  if not q or row(c[1][1][1]) then
    return nil
  end
  return 'quota:' .. q[1]
end

local function creation(c)
  local status, rest = stored(c[2])
  if status == 'conflict' then
    return { 'conflict', {}, '' }
  elseif status then
    local kept = cmsgpack.unpack(rest)
    return { 'replayed', kept[1], kept[2] }
  end
  local once = c[4]
  local told = once and call('HGET', 'once:' .. once[1], once[2])
  if told then
    return { 'told', cmsgpack.unpack(told), '' }
  end
  for _, n in ipairs(c[1]) do
    if not holds(n, versions) then
      return { 'changed', {}, '' }
    end
  end
  for _, seen in ipairs(c[5]) do
    if moved_on(seen[1], seen[2], seen[3]) then
      return { 'changed', {}, '' }
    end
  end
  for _, n in ipairs(c[1]) do
    if unwanted(n) then
      return { 'unwanted', {}, '' }
    end
  end
  for _, n in ipairs(c[1]) do
    local r = rival(n)
    if r then
      return { 'busy', { { r.id, r.st, 'existing' } }, '' }
    end
  end
  local count = counted(c)
  if count and tonumber(call('GET', count) or '0') >= c[3][2] then
    return { 'exhausted', {}, '' }
  end
  local runs = {}
  for i, n in ipairs(c[1]) do
    runs[i] = stand(n)
  end
  if count then
    call('INCR', count)
    call('PEXPIRE', count, QUOTA_TTL_MS)
  end
  if once then call('HSET', 'once:' .. once[1], once[2], cmsgpack.pack(runs)) end
  if c[2] then store(c[2], cmsgpack.pack({ runs, c[2][3] })) end
  return { 'ok', runs, '' }
end

for i, c in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[i] = creation(c)
end
flush_queue()
flush()
return cmsgpack.pack(answers)
