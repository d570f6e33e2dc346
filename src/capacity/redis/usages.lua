-- What is in use of each scope.
--
-- KEYS: epoch, leases, then one account per scope.
-- ARGV: 1 the epoch's id, 2 the base of all names, 3 the header, then the
--       starts of the hour, day, week and month of each scope.
-- Header: now (-1 = the server's), how long a lapsed hold is kept.
-- Answer: one string per scope: live, used of all time, hour, day, week and
--         month, and held of them.

local epoch = redis.call('GET', KEYS[1])
if not epoch or string.match(epoch, '^%S+') ~= ARGV[1] then
  return redis.error_reply('EPOCH ' .. (epoch or 'none'))
end
local base = ARGV[2]
local given, lapsed_ms = struct.unpack('<dd', ARGV[3])
expire(base, KEYS[2], clock(given), lapsed_ms)
local said = {}
for i = 1, #KEYS - 2 do
  local key = KEYS[2 + i]
  local raw = redis.call('GET', key)
  local account = decode(raw)
  local hour, day, week, month = struct.unpack('<i4i4i4i4', ARGV[3 + i])
  if roll(account, base .. 'u:' .. string.sub(key, #base + 3), hour, day, week, month) and raw then
    redis.call('SET', key, encode(account))
  end
  said[i] = string.format('%d %d %d %d %d %d %d %d %d %d %d', account[1],
    account[2], account[5], account[7], account[9], account[11],
    open_since(account, -2147483648), open_since(account, hour), open_since(account, day),
    open_since(account, week), open_since(account, month))
end
return said
