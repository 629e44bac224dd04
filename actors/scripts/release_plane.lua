-- plane -> the lease then

local plane = cmsgpack.unpack(ARGV[1])
local lease = read_lease()
local after = lease
if lease.plane == plane then
  local kept, now = lease.wanted ~= '', clock_ms()
  after = {
    plane = '', term = lease.term + 1, since_ms = now, until_ms = kept and now + KEPT_MS or 0,
    span_ms = kept and KEPT_MS or 0, seat = '', url = '', wanted = lease.wanted,
  }
end
write_lease(lease, after)
return told(after)
