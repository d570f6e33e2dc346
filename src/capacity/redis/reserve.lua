-- Holds the first candidate that has room everywhere, or says why none has.
--
-- KEYS: epoch, hold, leases, cursor, then one account per scope.
-- ARGV: 1 the epoch that must be in force and open, 2 the base of all names,
--       3 the hold's id, 4 the node, 5 the header, 6 the candidates,
--       7 one claim per scope.
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
if text and expire(base, leases_key, now, lapsed_ms) then
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

-- Accounts as they are kept, and which of them are new. Only what is needed is unpacked.
local raws, fresh = {}, {}
-- Scopes that have room: candidates share some.
local roomy = {}
local claims, CLAIM = ARGV[7], 40

local function name(n)
  return string.sub(KEYS[4 + n], #base + 3)
end

-- A candidate's link, and its scopes by their number.
local function offer(i)
  local at = ((i + rotated) % count) * CANDIDATE + 1
  local link, a, b, c, d = struct.unpack('<dHHHH', candidates, at)
  local scopes = {}
  for _, n in ipairs({a, b, c, d}) do
    if n > 0 then
      scopes[#scopes + 1] = n
    end
  end
  return link, scopes
end

-- Reads the accounts of these candidates that aren't known yet.
local function read(first_offer, last_offer)
  local keys, which = {}, {}
  for i = first_offer, last_offer do
    local _, scopes = offer(i)
    for k = 1, #scopes do
      local n = scopes[k]
      if raws[n] == nil then
        raws[n] = false
        keys[#keys + 1] = KEYS[4 + n]
        which[#which + 1] = n
      end
    end
  end
  if #keys == 0 then
    return
  end
  local found = redis.call('MGET', unpack(keys))
  for i = 1, #which do
    raws[which[i]], fresh[which[i]] = found[i] or FRESH, not found[i]
  end
end

-- Makes the account's windows those that start as asked.
local function rolled_to(n, hour, day, week, month)
  local account = decode(raws[n])
  roll(account, base .. 'u:' .. name(n), hour, day, week, month)
  raws[n] = encode(account)
  if not fresh[n] and dry == 0 then
    redis.call('SET', KEYS[4 + n], raws[n])
  end
  return raws[n]
end

-- Which cap of a scope is full: the volume's cap, used, held and limit, or else
-- the live calls and their limit.
local function full(n)
  local raw = raws[n]
  local concurrency, total, hour, hour_from, day, day_from, week, week_from, month, month_from =
    struct.unpack('<i4i4i4i4i4i4i4i4i4i4', claims, (n - 1) * CLAIM + 1)
  local live, in_total, _, known_hour, in_hour, known_day, in_day, known_week, in_week, known_month, in_month =
    struct.unpack('<i4i4i4i4i4i4i4i4i4i4i4', raw)
  if known_hour ~= hour_from or known_day ~= day_from or known_week ~= week_from or known_month ~= month_from then
    raw = rolled_to(n, hour_from, day_from, week_from, month_from)
    live, in_total, _, _, in_hour, _, in_day, _, in_week, _, in_month =
      struct.unpack('<i4i4i4i4i4i4i4i4i4i4i4', raw)
  end
  local held, held_hour, held_day, held_week, held_month = 0, 0, 0, 0, 0
  for at = 4 * HEAD + 1, #raw, 8 do
    local from, calls = struct.unpack('<i4i4', raw, at)
    held = held + calls
    if from >= hour_from then held_hour = held_hour + calls end
    if from >= day_from then held_day = held_day + calls end
    if from >= week_from then held_week = held_week + calls end
    if from >= month_from then held_month = held_month + calls end
  end
  if total >= 0 and in_total + held >= total then
    return 1, in_total, held, total
  elseif hour >= 0 and in_hour + held_hour >= hour then
    return 2, in_hour, held_hour, hour
  elseif day >= 0 and in_day + held_day >= day then
    return 3, in_day, held_day, day
  elseif week >= 0 and in_week + held_week >= week then
    return 4, in_week, held_week, week
  elseif month >= 0 and in_month + held_month >= month then
    return 5, in_month, held_month, month
  elseif concurrency >= 0 and live >= concurrency then
    return 0, live, 0, concurrency
  end
end

-- Which cap of the candidate is full: its scope, cap, used, held and limit.
-- Volume comes before concurrency, whatever the scope.
local function refusal(scopes)
  local busy, live, limit_of_live
  for i = 1, #scopes do
    local n = scopes[i]
    local cap, used, held, limit
    if not roomy[n] then
      cap, used, held, limit = full(n)
      roomy[n] = not cap
    end
    if cap == 0 then
      if not busy then
        busy, live, limit_of_live = n, used, limit
      end
    elseif cap then
      return n, cap, used, held, limit
    end
  end
  if busy then
    return busy, 0, live, 0, limit_of_live
  end
end

-- The account with one more call that is live and undecided.
local function with_one_more(raw)
  local live = struct.unpack('<i4', raw)
  if #raw == 4 * HEAD + 8 then
    local from, calls = struct.unpack('<i4i4', raw, 4 * HEAD + 1)
    if from == slot then
      return struct.pack('<i4', live + 1) .. string.sub(raw, 5, 4 * HEAD) .. struct.pack('<i4i4', slot, calls + 1)
    end
  end
  local account = decode(raw)
  account[1] = live + 1
  add_open(account, slot, 1)
  return encode(account)
end

-- Mostly the first candidate is the one.
local said, read_to, AT_ONCE = {}, -1, 32
for i = 0, count - 1 do
  local link, scopes = offer(i)
  if i > read_to then
    read_to = i == 0 and 0 or math.min(count - 1, i + AT_ONCE - 1)
    read(i, read_to)
  end
  local n, cap, used, held, limit = refusal(scopes)
  if n and i == 0 then
    -- Before anyone is refused, holds of which nobody speaks are let go.
    expire(base, leases_key, now, lapsed_ms)
    raws, roomy, read_to = {}, {}, math.min(count, AT_ONCE) - 1
    read(0, read_to)
    n, cap, used, held, limit = refusal(scopes)
  end
  if n then
    said[#said + 1] = string.format('%d %s %d %d %d %d', link, name(n), cap, used, held, limit)
  else
    local verdict = string.format('%d %d %d', link, rotated, cursor)
    if #said > 0 then
      verdict = verdict .. ' ' .. table.concat(said, ' ')
    end
    if dry == 0 then
      local writes, names = {}, {}
      for k = 1, #scopes do
        n = scopes[k]
        names[k] = name(n)
        writes[#writes + 1] = KEYS[4 + n]
        writes[#writes + 1] = with_one_more(raws[n])
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
