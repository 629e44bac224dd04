-- {tenant, dag_id} -> run, state, run, state, … of the runs of its fires that have not ended

local p, found = cmsgpack.unpack(ARGV[1]), {}
for _, id in ipairs(call('SMEMBERS', 'live:' .. p[1] .. ':' .. p[2])) do
  found[#found + 1] = id
  found[#found + 1] = call('HGET', 'run:' .. id, 'st')
end
return found
