-- What is used of each scope.
--
-- KEYS: epoch, then account and slots of each scope.
-- ARGV: 1 the epoch's id.
-- Answer: for each scope, the total and then slots and their calls.

local epoch = redis.call('GET', KEYS[1])
if not epoch or string.match(epoch, '^%S+') ~= ARGV[1] then
  return redis.error_reply('EPOCH ' .. (epoch or 'none'))
end
local said = {}
for i = 2, #KEYS, 2 do
  local account = decode(redis.call('GET', KEYS[i]))
  said[#said + 1] = {account[2], redis.call('HGETALL', KEYS[i + 1])}
end
return said
