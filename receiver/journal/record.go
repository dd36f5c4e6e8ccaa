package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// A record is a CRC-32C and then fields in protobuf's wire format: a later version can add fields,
// and an earlier one skips them.
const (
	fieldID protowire.Number = iota + 1
	fieldType
	fieldLane
	fieldReceivedAt
	fieldMethod
	fieldPath
	fieldQuery
	fieldHeader
	fieldBody
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("its checksum does not match")

// encode writes a record under its sequence number, which its checksum covers.
func encode(seq uint64, r *Record) []byte {
	data := make([]byte, 4, 4+256+len(r.Request.Query)+len(r.Request.Body))
	text := func(field protowire.Number, value string) {
		if value != "" {
			data = protowire.AppendTag(data, field, protowire.BytesType)
			data = protowire.AppendString(data, value)
		}
	}
	text(fieldID, r.ID)
	text(fieldType, string(r.Type))
	text(fieldLane, r.Lane)
	data = protowire.AppendTag(data, fieldReceivedAt, protowire.VarintType)
	data = protowire.AppendVarint(data, uint64(r.Request.ReceivedAt.UnixNano()))
	text(fieldMethod, r.Request.Method)
	text(fieldPath, r.Request.Path)
	text(fieldQuery, r.Request.Query)
	for name, values := range r.Request.Header {
		for _, value := range values {
			text(fieldHeader, name+":"+value)
		}
	}
	if len(r.Request.Body) > 0 {
		data = protowire.AppendTag(data, fieldBody, protowire.BytesType)
		data = protowire.AppendBytes(data, r.Request.Body)
	}
	binary.BigEndian.PutUint32(data, checksum(keyOf(seq), data[4:]))
	return data
}

// checksum covers a value and the key under which it is stored: what moved is as wrong as what changed.
func checksum(key, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(data, castagnoli), castagnoli, key)
}

// intact is whether a stored record is what was written under its sequence number.
func intact(seq uint64, data []byte) bool {
	return len(data) > 4 && binary.BigEndian.Uint32(data) == checksum(keyOf(seq), data[4:])
}

// A sealed value is a mark, a checksum, and JSON.
const (
	sealMark   = 0x01
	sealHeader = 5
)

// seal writes a value as JSON with a checksum.
func seal(key []byte, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	data := append(make([]byte, sealHeader, sealHeader+len(text)), text...)
	data[0] = sealMark
	binary.BigEndian.PutUint32(data[1:], checksum(key, text))
	return data, nil
}

// unseal reads what seal wrote.
func unseal(key, data []byte, value any) error {
	if len(data) < sealHeader || data[0] != sealMark || binary.BigEndian.Uint32(data[1:]) != checksum(key, data[sealHeader:]) {
		return errChecksum
	}
	return json.Unmarshal(data[sealHeader:], value)
}

// decode reads a record; it keeps nothing of data.
func decode(seq uint64, data []byte) (Record, error) {
	r := Record{Seq: seq}
	if !intact(seq, data) {
		return r, errChecksum
	}
	for data = data[4:]; len(data) > 0; {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return r, protowire.ParseError(n)
		}
		data = data[n:]
		switch kind {
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(data)
			if n < 0 {
				return r, protowire.ParseError(n)
			}
			data = data[n:]
			r.set(field, value)
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(data)
			if n < 0 {
				return r, protowire.ParseError(n)
			}
			data = data[n:]
			if field == fieldReceivedAt {
				r.Request.ReceivedAt = time.Unix(0, int64(value)).UTC()
			}
		default:
			n := protowire.ConsumeFieldValue(field, kind, data)
			if n < 0 {
				return r, protowire.ParseError(n)
			}
			data = data[n:]
		}
	}
	return r, nil
}

func (r *Record) set(field protowire.Number, value []byte) {
	switch field {
	case fieldID:
		r.ID = string(value)
	case fieldType:
		r.Type = event.Type(value)
	case fieldLane:
		r.Lane = string(value)
	case fieldMethod:
		r.Request.Method = string(value)
	case fieldPath:
		r.Request.Path = string(value)
	case fieldQuery:
		r.Request.Query = string(value)
	case fieldHeader:
		if r.Request.Header == nil {
			r.Request.Header = http.Header{}
		}
		name, value, _ := strings.Cut(string(value), ":")
		r.Request.Header[name] = append(r.Request.Header[name], value)
	case fieldBody:
		r.Request.Body = slices.Clone(value)
	}
}

// headOf reads the fields of a record that stand before its request.
func headOf(seq uint64, data []byte) Head {
	h := Head{Seq: seq}
	for data = data[4:]; len(data) > 0; {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 || field > fieldReceivedAt {
			return h
		}
		data = data[n:]
		if kind == protowire.VarintType {
			value, n := protowire.ConsumeVarint(data)
			if n < 0 {
				return h
			}
			h.ReceivedAt = time.Unix(0, int64(value)).UTC()
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if kind != protowire.BytesType || n < 0 {
			return h
		}
		data = data[n:]
		switch field {
		case fieldID:
			h.ID = string(value)
		case fieldType:
			h.Type = event.Type(value)
		case fieldLane:
			h.Lane = string(value)
		}
	}
	return h
}

// laneOf reads a record's lane alone.
func laneOf(data []byte) string {
	for data = data[4:]; len(data) > 0; {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return ""
		}
		data = data[n:]
		if field == fieldLane && kind == protowire.BytesType {
			value, _ := protowire.ConsumeString(data)
			return value
		}
		if n = protowire.ConsumeFieldValue(field, kind, data); n < 0 || field > fieldLane {
			return ""
		}
		data = data[n:]
	}
	return ""
}

// letter is a dead letter as it is stored.
type letter struct {
	Record   []byte    `json:"record"`
	Reason   string    `json:"reason"`
	Attempts int32     `json:"attempts"`
	Status   int       `json:"status,omitempty"`
	Reply    string    `json:"reply,omitempty"`
	Time     time.Time `json:"time"`
}

// letterKey is what a dead letter's checksum covers beside it: whose it is, and of which event.
func letterKey(target string, seq uint64) []byte { return append([]byte(target+"/"), keyOf(seq)...) }

func encodeLetter(target string, d *DeadLetter) ([]byte, error) {
	seq := d.Record.Seq
	return seal(letterKey(target, seq), letter{Record: encode(seq, &d.Record), Reason: d.Reason, Attempts: d.Attempts, Status: d.Status, Reply: d.Reply, Time: d.Time})
}

func decodeLetter(target string, seq uint64, data []byte) (DeadLetter, error) {
	var l letter
	if err := unseal(letterKey(target, seq), data, &l); err != nil {
		return DeadLetter{}, err
	}
	record, err := decode(seq, l.Record)
	return DeadLetter{Record: record, Reason: l.Reason, Attempts: l.Attempts, Status: l.Status, Reply: l.Reply, Time: l.Time}, err
}
