-- Claim {plane, span, seat, url, returning, alone, wants} -> the lease then; without a plane it is only read

local p = cmsgpack.unpack(ARGV[1])
local plane, span, seat, url, returning, alone, wants = p[1], p[2], p[3], p[4], p[5], p[6], p[7]
local now, lease = clock_ms(), read_lease()
local ends = span > 0 and now + span or 0

local function is_open()
  if alone then return true end
  local ran_out = lease.until_ms ~= 0 and lease.until_ms <= now
  if lease.plane == '' then
    return ran_out or lease.wanted == '' or lease.wanted == plane
  end
  return ran_out or (returning and seat ~= '' and seat == lease.seat)
end

local after
if plane == '' then
  after = lease
elseif lease.plane == plane then
  after = copied(lease, { until_ms = ends, span_ms = span, wanted = lease.wanted == plane and '' or lease.wanted })
elseif is_open() then
  after = {
    plane = plane, term = lease.term + 1, since_ms = now, until_ms = ends, span_ms = span, seat = seat, url = url,
    wanted = '',
  }
else
  local wanted = wants and lease.plane ~= '' and plane or lease.wanted
  after = copied(lease, { until_ms = math.min(lease.until_ms, now + lease.span_ms), wanted = wanted })
end
write_lease(lease, after)
return told(after)
