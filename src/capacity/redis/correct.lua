-- Adds to what is used of one scope, or takes off.
--
-- KEYS: epoch, account, slots.
-- ARGV: 1 the epoch's id, 2 the base of all names, 3 the scope, 4 the
--       difference of all time, then slots and their differences.

local epoch = redis.call('GET', KEYS[1])
if not epoch or string.match(epoch, '^%S+') ~= ARGV[1] then
  return redis.error_reply('EPOCH ' .. (epoch or 'none'))
end
redis.call('SADD', ARGV[2] .. 'scopes', ARGV[3])
local account = decode(redis.call('GET', KEYS[2]))
account[2] = math.max(0, account[2] + tonumber(ARGV[4]))
for i = 5, #ARGV, 2 do
  add_used(account, KEYS[3], tonumber(ARGV[i]), tonumber(ARGV[i + 1]))
end
redis.call('SET', KEYS[2], encode(account))
return 'OK'
