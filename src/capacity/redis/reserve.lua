-- Holds the first candidate that has room everywhere, or says why none has.
--
-- KEYS: epoch, hold, leases, cursor, then one account per scope.
-- ARGV: 1 the epoch that must be in force and open, 2 the base of all names,
--       3 the hold's id, 4 the node, 5 the header, 6 the candidates,
--       then one claim per scope.
-- Header: now (-1 = the server's), lease, how long a lapsed hold is kept, slot,
--         whether this is a dry run, turn (0 none, 1 rotate, 2 advance).
-- Candidate: link, then four scopes by their number, 0 = none.
-- Claim: limits of concurrency and of all time, then limit and start of the
--        hour, day, week and month; -1 = no limit.
-- Answer: "granted rotated cursor", 0 = none, then for each refusal
--         " link scope cap used held limit", cap 0 = concurrency, else the window.

local base, id, node = ARGV[2], ARGV[3], ARGV[4]
local given, lease, lapsed_ms, slot, dry, turn = struct.unpack('<dddi4i4i4', ARGV[5])
local leases_key, cursor_key = KEYS[3], KEYS[4]

local first = redis.call('MGET', KEYS[1], KEYS[2], cursor_key)
if first[1] ~= ARGV[1] then
  return redis.error_reply('EPOCH ' .. (first[1] or 'none'))
end
local now = clock(given)
local text = first[2]
if expire(base, leases_key, now, lapsed_ms) and text then
  text = redis.call('GET', KEYS[2])
end
if text then
  local kept, _, _, scopes, verdict = parse_hold(text)
  if kept == CLOSED then
    return '0 0 0'
  end
  if kept == HELD and dry == 0 then
    redis.call('ZADD', leases_key, now + lease, id)
  end
  if verdict == '' then
    verdict = (string.match(scopes, 'l(%d+)') or '0') .. ' 0 0'
  end
  return verdict
end

local CANDIDATE = 16
local candidates = ARGV[6]
local count = #candidates / CANDIDATE

local rotated, cursor = 0, 0
if turn == 1 and first[3] then
  cursor = tonumber(first[3])
  local passed = 0
  for i = 0, count - 1 do
    if struct.unpack('<d', candidates, i * CANDIDATE + 1) <= cursor then
      passed = passed + 1
    end
  end
  if count > 0 then
    rotated = passed % count
  end
end

local accounts, claims, fresh = {}, {}, {}

-- Reads the accounts that aren't known yet of a candidate's scopes.
local function read(scopes)
  local keys, which = {}, {}
  for i = 1, #scopes do
    local n = scopes[i]
    if not accounts[n] then
      keys[#keys + 1] = KEYS[4 + n]
      which[#which + 1] = n
    end
  end
  if #keys == 0 then
    return
  end
  local raws = redis.call('MGET', unpack(keys))
  for i = 1, #which do
    local n = which[i]
    local account = decode(raws[i])
    local claim = {struct.unpack('<i4i4i4i4i4i4i4i4i4i4', ARGV[6 + n])}
    fresh[n] = not raws[i]
    accounts[n], claims[n] = account, claim
    local slots_key = base .. 'u:' .. string.sub(KEYS[4 + n], #base + 3)
    local rolled = roll(account, slots_key, claim[4], claim[6], claim[8], claim[10])
    if rolled and raws[i] and dry == 0 then
      redis.call('SET', KEYS[4 + n], encode(account))
    end
  end
end

-- Which cap of the candidate is full: its scope, cap, used, held and limit.
local function refusal(scopes)
  for i = 1, #scopes do
    local n = scopes[i]
    local account, claim = accounts[n], claims[n]
    if claim[2] >= 0 then
      local held = open_since(account, -2147483648)
      if account[2] + held >= claim[2] then
        return n, 1, account[2], held, claim[2]
      end
    end
    for kind = 1, 4 do
      local limit = claim[1 + 2 * kind]
      if limit >= 0 then
        local used, held = account[3 + 2 * kind], open_since(account, claim[2 + 2 * kind])
        if used + held >= limit then
          return n, 1 + kind, used, held, limit
        end
      end
    end
  end
  for i = 1, #scopes do
    local n = scopes[i]
    local limit = claims[n][1]
    if limit >= 0 and accounts[n][1] >= limit then
      return n, 0, accounts[n][1], 0, limit
    end
  end
end

local said = {}
for i = 0, count - 1 do
  local at = ((i + rotated) % count) * CANDIDATE + 1
  local link, a, b, c, d = struct.unpack('<dHHHH', candidates, at)
  local scopes = {}
  for _, n in ipairs({a, b, c, d}) do
    if n > 0 then
      scopes[#scopes + 1] = n
    end
  end
  read(scopes)
  local n, cap, used, held, limit = refusal(scopes)
  if n then
    said[#said + 1] = string.format('%d %s %d %d %d %d', link, string.sub(KEYS[4 + n], #base + 3), cap, used, held, limit)
  else
    local verdict = string.format('%d %d %d', link, rotated, cursor)
    if #said > 0 then
      verdict = verdict .. ' ' .. table.concat(said, ' ')
    end
    if dry == 0 then
      local writes, names = {}, {}
      for k = 1, #scopes do
        n = scopes[k]
        local account = accounts[n]
        account[1] = account[1] + 1
        add_open(account, slot, 1)
        names[k] = string.sub(KEYS[4 + n], #base + 3)
        writes[#writes + 1] = KEYS[4 + n]
        writes[#writes + 1] = encode(account)
        if fresh[n] then
          redis.call('SADD', base .. 'scopes', names[k])
        end
      end
      writes[#writes + 1] = KEYS[2]
      writes[#writes + 1] = format_hold(HELD, slot, node, table.concat(names, ','), verdict)
      if turn ~= 0 then
        writes[#writes + 1] = cursor_key
        writes[#writes + 1] = string.format('%d', link)
      end
      redis.call('MSET', unpack(writes))
      redis.call('ZADD', leases_key, now + lease, id)
    end
    return verdict
  end
end
local verdict = string.format('0 %d %d', rotated, cursor)
if #said > 0 then
  verdict = verdict .. ' ' .. table.concat(said, ' ')
end
return verdict
