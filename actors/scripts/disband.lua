-- limit -> whether windows still name a backfill that was released; so many at most are looked at

local function forget(child, backfill)
  local r = row(child)
  local others = {}
  for watcher in string.gmatch(r and r.wb or '', '%S+') do
    if watcher ~= backfill then others[#others + 1] = watcher end
  end
  local left = table.concat(others, ' ')
  if r and left ~= r.wb then call('HSET', 'run:' .. child, 'wb', left) end
end

local id = call('SRANDMEMBER', 'released')
if not id then
  return 0
end
local limit = cmsgpack.unpack(ARGV[1])
for _, child in ipairs(call('LRANGE', 'bf:' .. id, 0, limit - 1)) do
  forget(child, id)
end
call('LTRIM', 'bf:' .. id, limit, -1)
if call('EXISTS', 'bf:' .. id) == 0 then
  call('UNLINK', 'bfk:' .. id, 'bfc:' .. id, 'bft:' .. id, 'i:p:' .. id)
  call('SREM', 'released', id)
end
return call('SCARD', 'released')
