-- Wireshark's view of Machnet's packets, version 3 (docs/wire.md). To use it:
--
--   tshark -X lua_script:docs/machnet.lua -r capture.pcap -Y 'machnet.kind == "DATA" && machnet.flags.probe == 1'
--
-- or copy it to the folder that Wireshark calls "Personal Lua Plugins" (Help, About, Folders). Best not as root: where Wireshark's
-- init.lua says run_user_scripts_when_superuser = false, Lua is left out without a word. What a receiver would refuse is marked with
-- machnet.malformed.

local machnet = Proto("machnet", "Machnet")

machnet.prefs.ports = Pref.range("UDP ports", "31580-32603", "UDP ports whose packets are Machnet's (udp_ports of the sidecars)", 65535)

local VERSION, HEADER, WORD, SEAL = 3, 48, 8, 16
local HELLO, RESET, ENTRY = 40, 16, 6
local REACH = 16384 -- of ranges, units
local DELAY_STEP = 64 -- nanoseconds
local MODULUS = 4294967296 -- of the numbers of units

local kinds = { [1] = "SYN", [2] = "SYN-ACK", [3] = "DATA", [4] = "ACK", [5] = "PING", [6] = "RST", [7] = "PATHS" }
local reasons = {
    [1] = "refused", [2] = "port in use", [3] = "closed", [4] = "application gone", [5] = "timeout", [6] = "protocol broken",
    [7] = "aborted", [8] = "no resources", [9] = "application full", [10] = "engine full", [11] = "ending",
}
local flag_names = {
    "BEGIN", "END", "ABORT", "FIN", "ECHO", "REFUSED", "PROBE", "DRAIN_EPOCH", "REPORT", "HIT", "RANGES", "SEALED", "PART", "HELLO",
}
local hello_flag_names = { "MIRRORED", "PARTS" }

local f = {
    version = ProtoField.uint8("machnet.version", "Version", base.DEC, nil, 0xf0),
    kind = ProtoField.uint8("machnet.kind", "Kind", base.DEC, kinds, 0x0f),
    lane = ProtoField.uint8("machnet.lane", "Lane", base.DEC, nil, 0xe0),
    words = ProtoField.uint8("machnet.sack_words", "SACK words", base.DEC, nil, 0x1f),
    flags = ProtoField.uint16("machnet.flags", "Flags", base.HEX),
    flags_reserved = ProtoField.uint16("machnet.flags.reserved", "reserved", base.HEX, nil, 0xc000),
    src = ProtoField.uint16("machnet.src_port", "Source port"),
    dst = ProtoField.uint16("machnet.dst_port", "Destination port"),
    tag = ProtoField.uint32("machnet.tag", "Tag (the receiver's)", base.HEX),
    unit = ProtoField.uint32("machnet.unit", "Unit"),
    tx = ProtoField.uint32("machnet.tx", "Transmission"),
    ack = ProtoField.uint32("machnet.ack", "Next unit expected"),
    ack_tx = ProtoField.uint32("machnet.ack_tx", "Answers transmission"),
    credit = ProtoField.uint16("machnet.credit", "Credit"),
    backlog = ProtoField.uint8("machnet.backlog", "Fill of the receive ring (of 255)"),
    want = ProtoField.uint8("machnet.want", "Units yet to send"),
    ts = ProtoField.uint32("machnet.ts", "Time sent (ns)"),
    ts_echo = ProtoField.uint32("machnet.ts_echo", "Time sent of what this answers (ns)"),
    ack_delay = ProtoField.uint16("machnet.ack_delay", "Delay of this answer (64 ns)"),
    gap = ProtoField.uint16("machnet.gap", "Gap before it was taken (64 ns)"),
    ack_delay_ns = ProtoField.uint32("machnet.ack_delay_ns", "Delay of this answer (ns)"),
    gap_ns = ProtoField.uint32("machnet.gap_ns", "Gap before it was taken (ns)"),
    message_len = ProtoField.uint32("machnet.message_len", "Length of the message"),

    hit_src = ProtoField.uint16("machnet.hit.src", "Source port"),
    hit_dst = ProtoField.uint16("machnet.hit.dst", "Destination port"),
    hit_queue = ProtoField.uint16("machnet.hit.queue", "Queue"),
    hit_reserved = ProtoField.uint16("machnet.hit.reserved", "Reserved"),
    part_offset = ProtoField.uint16("machnet.part.offset", "Offset"),
    part_unit_len = ProtoField.uint16("machnet.part.unit_len", "Length of the unit"),
    part_reserved = ProtoField.uint32("machnet.part.reserved", "Reserved"),
    part_last = ProtoField.bool("machnet.part.last", "Last part"),
    sack_word = ProtoField.uint64("machnet.sack.word", "SACK word", base.HEX),
    sack_first = ProtoField.uint32("machnet.sack.first", "First unit that has arrived"),
    sack_last = ProtoField.uint32("machnet.sack.last", "Last of them"),
    payload = ProtoField.bytes("machnet.payload", "Payload"),
    padding = ProtoField.bytes("machnet.padding", "Padding"),
    seal = ProtoField.bytes("machnet.seal", "Authentication tag"),

    hello_tag = ProtoField.uint32("machnet.hello.tag", "Tag (the sender's own)", base.HEX),
    hello_epoch = ProtoField.uint64("machnet.hello.epoch", "Epoch", base.HEX),
    hello_mtu = ProtoField.uint16("machnet.hello.mtu", "MTU"),
    hello_queues = ProtoField.uint16("machnet.hello.queues", "Receive queues"),
    hello_queue = ProtoField.uint16("machnet.hello.queue", "Queue wanted"),
    hello_hit_src = ProtoField.uint16("machnet.hello.hit.src", "Hit: source port"),
    hello_hit_dst = ProtoField.uint16("machnet.hello.hit.dst", "Hit: destination port"),
    hello_hit_queue = ProtoField.uint16("machnet.hello.hit.queue", "Hit: queue reached"),
    hello_steer = ProtoField.uint16("machnet.hello.steer", "Steering port"),
    hello_seal = ProtoField.uint8("machnet.hello.seal", "Length of the authentication tag wanted"),
    hello_lanes = ProtoField.uint8("machnet.hello.lanes", "Lanes"),
    hello_flags = ProtoField.uint16("machnet.hello.flags", "Flags", base.HEX),
    hello_reserved = ProtoField.uint16("machnet.hello.reserved", "Reserved"),
    hello_cookie = ProtoField.uint64("machnet.hello.cookie", "Cookie", base.HEX),

    reset_epoch = ProtoField.uint64("machnet.reset.epoch", "Epoch", base.HEX),
    reset_echo = ProtoField.uint32("machnet.reset.echo", "Tag refused", base.HEX),
    reset_reason = ProtoField.uint8("machnet.reset.reason", "Reason", base.DEC, reasons),
    reset_limit = ProtoField.uint24("machnet.reset.limit", "Limit"),

    path_src = ProtoField.uint16("machnet.paths.src", "Source port"),
    path_dst = ProtoField.uint16("machnet.paths.dst", "Destination port"),
    path_queue = ProtoField.uint16("machnet.paths.queue", "Queue reached"),
}
for i, name in ipairs(flag_names) do
    f["flags_" .. name] = ProtoField.bool("machnet.flags." .. name:lower(), name, 16, nil, 2 ^ (i - 1))
end
for i, name in ipairs(hello_flag_names) do
    f["hello_flags_" .. name] = ProtoField.bool("machnet.hello.flags." .. name:lower(), name, 16, nil, 2 ^ (i - 1))
end
machnet.fields = f

local malformed = ProtoExpert.new("machnet.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR)
machnet.experts = { malformed }

-- The flags that are set, by name.
local function flags_of(range, names)
    local set, list = {}, {}
    for i, name in ipairs(names) do
        if range:bitfield(16 - i, 1) == 1 then
            set[name] = true
            list[#list + 1] = name
        end
    end
    return set, table.concat(list, " ")
end

-- Bytes of a packet, perhaps none, of which Wireshark has no range.
local Span = {}
Span.__index = Span

function Span.new(tvb, from)
    return setmetatable({ tvb = tvb, from = from, len = tvb:len() - from }, Span)
end

-- All of them, or `len` from `at` on.
function Span:bytes(at, len)
    return self.tvb(self.from + (at or 0), len or self.len)
end

-- The first `len`, which are left out from then on; nil: there are fewer.
function Span:take(len)
    if self.len < len then return nil end
    local bytes = self:bytes(0, len)
    self.from, self.len = self.from + len, self.len - len
    return bytes
end

-- The same with the last.
function Span:take_last(len)
    if self.len < len then return nil end
    local bytes = self:bytes(self.len - len, len)
    self.len = self.len - len
    return bytes
end

-- Adds a field of some bytes; its value.
local function add(tree, field, range)
    tree:add(field, range)
    return range:len() <= 4 and range:uint() or nil
end

-- Says in the tree that units from `first` to `last` have arrived, which `bytes` tell; numbers count from `ack + 1`.
local function arrived(tree, bytes, ack, first, last)
    local from, to = (ack + 1 + first) % MODULUS, (ack + 1 + last) % MODULUS
    tree:add(f.sack_first, bytes, from):set_generated()
    tree:add(f.sack_last, bytes, to):set_generated()
    return from == to and tostring(from) or from .. "-" .. to
end

-- The SACK words as bits; what they name.
local function sack_bits(tree, words, ack)
    local named, first = {}, nil
    local n = words:len() * 8
    local function close(last)
        local at = math.floor(first / 64) * WORD
        local bytes = words(at, (math.floor(last / 64) + 1) * WORD - at)
        named[#named + 1] = arrived(tree, bytes, ack, first, last)
        first = nil
    end
    for i = 0, n - 1 do
        -- Bit 0 of a word is its lowest.
        local word = math.floor(i / 64) * 64
        local set = words:bitfield(word + 63 - i % 64, 1) == 1
        if set and not first then first = i end
        if not set and first then close(i - 1) end
    end
    if first then close(n - 1) end
    return named
end

-- The SACK words as ranges; what they name, and whether they are as they ought to be.
local function sack_ranges(tree, words, ack)
    local named, free, fit = {}, 0, true
    local n = words:len() / 4
    for i = 0, n - 1 do
        local half = words(i * 4, 4)
        local first, count = half(0, 2):uint(), half(2, 2):uint()
        if i == n - 1 and first == 0 and count == 0 then break end
        fit = fit and count > 0 and first >= free and first + count <= REACH
        free = first + count + 1
        if count > 0 then named[#named + 1] = arrived(tree, half, ack, first, first + count - 1) end
    end
    return named, fit
end

-- Source and destination port of a UDP packet, and the queue that it reached.
local function reached(src, dst, queue)
    return src .. ">" .. dst .. "@" .. queue
end

local function dissect_hello(tree, body, info, refuse)
    if body.len ~= HELLO then return refuse("machnet hello") end
    local b = body:bytes()
    local hello = tree:add(machnet, b, "Hello")
    add(hello, f.hello_tag, b(0, 4))
    add(hello, f.hello_epoch, b(4, 8))
    local mtu = add(hello, f.hello_mtu, b(12, 2))
    local queues = add(hello, f.hello_queues, b(14, 2))
    local queue = add(hello, f.hello_queue, b(16, 2))
    local hit_src, hit_dst = add(hello, f.hello_hit_src, b(18, 2)), add(hello, f.hello_hit_dst, b(20, 2))
    local hit_queue = add(hello, f.hello_hit_queue, b(22, 2))
    add(hello, f.hello_steer, b(24, 2))
    local seal = add(hello, f.hello_seal, b(26, 1))
    local lanes = add(hello, f.hello_lanes, b(27, 1))
    local flags = hello:add(f.hello_flags, b(28, 2))
    for _, name in ipairs(hello_flag_names) do flags:add(f["hello_flags_" .. name], b(28, 2)) end
    local _, set = flags_of(b(28, 2), hello_flag_names)
    if set ~= "" then flags:append_text(" (" .. set .. ")") end
    local reserved = add(hello, f.hello_reserved, b(30, 2))
    add(hello, f.hello_cookie, b(32, 8))
    info[#info + 1] = "wants queue " .. queue .. " of " .. queues
    if hit_src ~= 0 or hit_dst ~= 0 then info[#info + 1] = "answers " .. reached(hit_src, hit_dst, hit_queue) end
    if mtu < 576 or mtu > 9001 then return refuse("machnet hello mtu") end
    if queue >= queues then return refuse("machnet hello queue") end
    if hit_queue >= queues then return refuse("machnet hello hit queue") end
    if seal ~= 0 and seal ~= SEAL then return refuse("machnet hello seal") end
    if lanes < 1 or lanes > 8 then return refuse("machnet hello lanes") end
    if b(28, 2):bitfield(0, 14) ~= 0 then return refuse("machnet hello flags") end
    if reserved ~= 0 then return refuse("machnet hello reserved") end
end

local function dissect_reset(tree, body, refuse)
    if body.len ~= RESET then return refuse("machnet reset") end
    local b = body:bytes()
    local reset = tree:add(machnet, b, "Reset")
    add(reset, f.reset_epoch, b(0, 8))
    add(reset, f.reset_echo, b(8, 4))
    local reason = add(reset, f.reset_reason, b(12, 1))
    local limit = add(reset, f.reset_limit, b(13, 3))
    if not reasons[reason] then return refuse("machnet reset reason") end
    if limit ~= 0 and reason ~= 9 and reason ~= 10 then return refuse("machnet reset limit") end
    return reasons[reason]
end

local function dissect_paths(tree, body, info, refuse)
    local n = math.floor(body.len / ENTRY)
    for i = 0, n - 1 do
        local bytes = body:bytes(i * ENTRY, ENTRY)
        local path = tree:add(machnet, bytes, "Path")
        local src, dst = add(path, f.path_src, bytes(0, 2)), add(path, f.path_dst, bytes(2, 2))
        local queue = add(path, f.path_queue, bytes(4, 2))
        path:append_text(": " .. src .. " to " .. dst .. " reached queue " .. queue)
        info[#info + 1] = reached(src, dst, queue)
    end
    if n == 0 or n > 32 or body.len % ENTRY ~= 0 then refuse("machnet paths length") end
end

-- What stands between header and payload, and behind it: the payload is left of `rest`. What is wrong, and the part word.
local function dissect_words(tree, rest, has, words, ack, info)
    if has.HIT then
        local b = rest:take(WORD)
        if not b then return "machnet path word" end
        local hit = tree:add(machnet, b, "Path word")
        local src, dst = add(hit, f.hit_src, b(0, 2)), add(hit, f.hit_dst, b(2, 2))
        local queue = add(hit, f.hit_queue, b(4, 2))
        local reserved = add(hit, f.hit_reserved, b(6, 2))
        hit:append_text(": " .. src .. " to " .. dst .. " reached queue " .. queue)
        info[#info + 1] = "hit " .. reached(src, dst, queue)
        if reserved ~= 0 then return "machnet path word reserved" end
    end
    local part
    if has.PART then
        local b = rest:take(WORD)
        if not b then return "machnet part word" end
        part = { tree = tree:add(machnet, b, "Part word"), bytes = b }
        part.offset = add(part.tree, f.part_offset, b(0, 2))
        part.unit_len = add(part.tree, f.part_unit_len, b(2, 2))
        part.reserved = add(part.tree, f.part_reserved, b(4, 4))
    end
    local fit = not has.RANGES
    if words > 0 then
        local sack = rest:take(words * WORD)
        if not sack then return "machnet sack words", part end
        local list = tree:add(machnet, sack, "Units beyond the next that have arrived")
        for i = 0, words - 1 do list:add(f.sack_word, sack(i * WORD, WORD)) end
        local named
        if has.RANGES then
            named, fit = sack_ranges(list, sack, ack)
        else
            named = sack_bits(list, sack, ack)
        end
        local text = table.concat(named, " ")
        list:append_text(": " .. text)
        info[#info + 1] = "sack " .. text
    end
    if has.SEALED then
        local seal = rest:take_last(SEAL)
        if not seal then return "machnet seal", part end
        tree:add(f.seal, seal)
    end
    if part then
        local last = part.offset + rest.len == part.unit_len
        part.tree:add(f.part_last, part.bytes, last):set_generated()
        part.tree:append_text(": from " .. part.offset .. " of " .. part.unit_len)
        info[#info + 1] = "part " .. part.offset .. "+" .. rest.len .. "/" .. part.unit_len
        if part.reserved ~= 0 then return "machnet part reserved", part end
        if rest.len == 0 or part.offset + rest.len > part.unit_len then return "machnet part", part end
    end
    if not fit then return "machnet sack ranges", part end
    return nil, part
end

-- Whether the flags that make a unit, its length and the message's may stand together; else what is wrong.
local function check_unit(kind, has, payload, unit_len, message_len)
    local mark = has.ABORT or has.FIN
    if kind ~= "DATA" and (has.BEGIN or has.END or mark) then return "machnet unit flags" end
    if mark and (has.BEGIN or has.END or has.ABORT and has.FIN or payload > 0) then return "machnet unit flags" end
    local fits
    if has.BEGIN and has.END then
        fits = message_len == unit_len
    elseif has.BEGIN then
        fits = message_len > unit_len
    else
        fits = message_len == 0
    end
    if not fits then return "machnet message length" end
end

-- What may not stand in a packet of this kind.
local function check_flags(kind, has, reserved, lane)
    local connected = kind == "DATA" or kind == "ACK" or kind == "PING" or kind == "PATHS"
    if reserved or not connected and (has.HIT or has.SEALED) or has.PART and kind ~= "DATA" or has.HELLO and kind ~= "ACK" then
        return "machnet flags"
    end
    if lane ~= 0 and not connected then return "machnet lane" end
end

function machnet.dissector(tvb, pinfo, root)
    pinfo.cols.protocol = "Machnet"
    local len = tvb:len()
    local tree = root:add(machnet, tvb())
    -- The first thing wrong is what a receiver would say.
    local wrong
    local function refuse(what)
        if not wrong then
            wrong = what
            tree:add_proto_expert_info(malformed, "Malformed: " .. what)
        end
    end
    local function finish(text)
        pinfo.cols.info = text .. (wrong and " [malformed: " .. wrong .. "]" or "")
        return len
    end
    if len < HEADER then
        refuse("machnet header")
        return finish("Machnet, " .. len .. " bytes")
    end

    local version, number = tvb(0, 1):bitfield(0, 4), tvb(0, 1):bitfield(4, 4)
    local lane, words = tvb(1, 1):bitfield(0, 3), tvb(1, 1):bitfield(3, 5)
    local kind = kinds[number]
    tree:add(f.version, tvb(0, 1))
    if version ~= VERSION then
        refuse("machnet version")
        return finish("Machnet version " .. version)
    end
    tree:add(f.kind, tvb(0, 1))
    if not kind then
        refuse("machnet kind")
        return finish("kind " .. number)
    end
    tree:add(f.lane, tvb(1, 1))
    tree:add(f.words, tvb(1, 1))
    if words > 16 then refuse("machnet sack words") end
    local flags = tree:add(f.flags, tvb(2, 2))
    flags:add(f.flags_reserved, tvb(2, 2))
    for i = #flag_names, 1, -1 do flags:add(f["flags_" .. flag_names[i]], tvb(2, 2)) end
    local has, set = flags_of(tvb(2, 2), flag_names)
    if set ~= "" then flags:append_text(" (" .. set .. ")") end

    local src, dst = add(tree, f.src, tvb(4, 2)), add(tree, f.dst, tvb(6, 2))
    local tag = add(tree, f.tag, tvb(8, 4))
    local unit = add(tree, f.unit, tvb(12, 4))
    local tx = add(tree, f.tx, tvb(16, 4))
    local ack = add(tree, f.ack, tvb(20, 4))
    add(tree, f.ack_tx, tvb(24, 4))
    local credit = add(tree, f.credit, tvb(28, 2))
    add(tree, f.backlog, tvb(30, 1))
    add(tree, f.want, tvb(31, 1))
    add(tree, f.ts, tvb(32, 4))
    add(tree, f.ts_echo, tvb(36, 4))
    for _, at in ipairs({ { 40, f.ack_delay, f.ack_delay_ns }, { 42, f.gap, f.gap_ns } }) do
        local bytes = tvb(at[1], 2)
        local steps = add(tree, at[2], bytes)
        -- The largest value stands for anything longer.
        if steps < 65535 then tree:add(at[3], bytes, steps * DELAY_STEP):set_generated() end
    end
    local message_len = add(tree, f.message_len, tvb(44, 4))

    local info = { kind, src .. " > " .. dst, string.format("tag %08x", tag), "unit " .. unit, "tx " .. tx, "ack " .. ack, "credit " .. credit }
    if lane > 0 then info[#info + 1] = "lane " .. lane end
    if set ~= "" then info[#info + 1] = "[" .. set .. "]" end
    -- What tells one copy of a SYN, one answer or one probe from the others.
    if kind == "SYN" or kind == "SYN-ACK" or has.REPORT then info[#info + 1] = "by " .. pinfo.src_port .. ">" .. pinfo.dst_port end
    local what = check_flags(kind, has, tvb(2, 2):bitfield(0, 2) ~= 0, lane)
    if what then refuse(what) end
    if len < tvb:reported_len() then return finish(table.concat(info, " ") .. " [cut by the capture]") end

    local body, part = Span.new(tvb, HEADER), nil
    what, part = dissect_words(tree, body, has, words, ack, info)
    if what then refuse(what) end
    local payload = body.len

    if kind == "ACK" and payload ~= (has.HELLO and HELLO or 0) then refuse("machnet acknowledgement with a payload") end
    what = check_unit(kind, has, payload, part and part.unit_len or payload, message_len)
    if what then refuse(what) end
    if kind == "SYN" or kind == "SYN-ACK" or has.HELLO and kind == "ACK" then
        dissect_hello(tree, body, info, refuse)
    elseif kind == "RST" then
        local reason = dissect_reset(tree, body, refuse)
        if reason then info[#info + 1] = "reason: " .. reason end
    elseif kind == "PATHS" then
        dissect_paths(tree, body, info, refuse)
    elseif payload > 0 then
        tree:add(kind == "PING" and f.padding or f.payload, body:bytes())
        info[#info + 1] = "len " .. payload
    end
    return finish(table.concat(info, " "))
end

local udp, known = DissectorTable.get("udp.port"), nil

function machnet.init()
    if known ~= machnet.prefs.ports then
        if known then udp:remove(known, machnet) end
        known = machnet.prefs.ports
        udp:add(known, machnet)
    end
end
