-- {key, most, window in ms} -> milliseconds until the key may ask again; 0 = it may now, and that counts
--
-- The list has the instants of the last `most` requests that passed, by this server's clock.

local p = cmsgpack.unpack(ARGV[1])
local key, most, window = 'rate:' .. p[1], p[2], p[3]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(call('LINDEX', key, -1) or '0') > now then call('DEL', key) end -- the clock was set back
local oldest = call('LINDEX', key, -most)
if oldest and oldest + window > now then
  return oldest + window - now
end
call('RPUSH', key, string.format('%d', now))
call('LTRIM', key, -most, -1)
call('PEXPIRE', key, window)
return 0
