package simotel

import (
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Catalog is all that Simotel sends (Simotel: one page an event). Names on the wire are compared in any
// case, because its pages write Cdr, CDR and cdr.
var Catalog = wire.NewCatalog(
	wire.Event{Name: "Cdr", Type: event.CallEnded, Becomes: "call.ended; call.missed for an incoming call with NO ANSWER or BUSY", Rules: wire.Join(about, record, cdr, byAPI), Then: missed},
	wire.Event{Name: "NewState", Type: event.ExtensionState, Becomes: "call.ringing for Ringing, else extension.state", Rules: wire.Join(about, inQueue, newState), Then: ringing},
	wire.Event{Name: "IncomingCall", Type: event.CallStarted, Rules: wire.Join(about, incomingCall, byAPI)},
	wire.Event{Name: "OutgoingCall", Type: event.CallStarted, Rules: wire.Join(about, outgoingCall, byAPI)},
	wire.Event{Name: "Transfer", Type: event.CallTransferred, Rules: wire.Join(about, transfer)},
	wire.Event{Name: "ExtenAdded", Type: event.ExtensionAdded, Rules: extension},
	wire.Event{Name: "ExtenRemoved", Type: event.ExtensionRemoved, Rules: extension},
	wire.Event{Name: "IncomingFax", Type: event.FaxReceived, Rules: wire.Join(about, fax)},
	wire.Event{Name: "OutgoingFax", Type: event.FaxSent, Rules: wire.Join(about, fax)},
	wire.Event{Name: "CdrQueue", Type: event.QueueCompleted, Rules: wire.Join(about, inQueue, record, cdrQueue, byAPI)},
	wire.Event{Name: "VoiceMail", Type: event.VoicemailReceived, Rules: wire.Join(about, voicemail)},
	wire.Event{Name: "VoiceMailEmail", Type: event.VoicemailEmailed, Rules: wire.Join(about, voicemail)},
	wire.Event{Name: "Survey", Type: event.SurveyAnswered, Rules: wire.Join(about, inQueue, survey)},
	wire.Event{Name: "Ping", Type: event.Ping},
	wire.Event{Name: "TrunkNewState", Type: event.TrunkState, Rules: trunk},
	wire.Event{Name: "TrunkAdded", Type: event.TrunkAdded, Rules: trunk},
	wire.Event{Name: "TrunkRemoved", Type: event.TrunkRemoved, Rules: trunk},
	wire.Event{Name: "AutoDialerReport", Type: event.CampaignReported, Rules: wire.Join(about, campaign)},
	wire.Event{Name: "ReservedCallInFront", Type: event.QueueReserved, Rules: wire.Join(about, reservation)},
)

// about says which call an event belongs to. Older pages write unique_id, newer ones cuid; the wire
// may carry both, with one value.
var about = wire.Join(wire.Rules{
	{Field: "call.id", Keys: []string{"unique_id", "cuid"}},
})

// inQueue: the queue, where the call went through one.
var inQueue = wire.Rules{
	{Field: "call.queue", Keys: []string{"queue"}},
}

// byAPI: only calls that Simotel's API originated ("two-way") have that id (Simotel: Cdr page).
var byAPI = wire.Rules{
	{Field: "call.reference", Keys: []string{"originated_call_id"}},
	{Field: "call.callType", Keys: []string{"originated_call_id"}, As: func(string) string { return string(v1alpha1.CallTypeClickToCall) }, Note: "ClickToCall where there is one"},
}

var newState = wire.Rules{
	{Field: "extension.number", Keys: []string{"exten"}},
	{Field: "extension.state", Keys: []string{"state"}, Values: extensionStates, Closed: true},
	{Field: "extension.participant", Keys: []string{"participant"}},
	{Field: "extension.queue", Keys: []string{"queue"}},
	{Field: "call.from.number", Keys: []string{"participant", "exten"}, Set: side("in", "out"), Note: "`participant` where `direction` is in, `exten` where it is out"},
	{Field: "call.to.number", Keys: []string{"participant", "exten"}, Set: side("out", "in"), Note: "`exten` where `direction` is in, `participant` where it is out"},
	{Field: "call.state", Keys: []string{"state"}, Values: map[string]string{"ringing": event.StateRinging, "ringinuse": event.StateRinging, "inuse": event.StateAnswered}, Closed: true},
}

// extensionStates: Asterisk has RINGINUSE for an extension that rings while it is in a call, and NOT_INUSE for Simotel's Idle.
var extensionStates = map[string]string{
	"idle": "idle", "notinuse": "idle", "ringing": "ringing", "ringinuse": "ringing", "inuse": "inUse", "pause": "paused", "paused": "paused", "unavailable": "unavailable",
}

// side fills one end of a NewState's call. direction is seen from the extension: from the participant
// when it is one, to it when it is the other.
func side(participant, exten string) func(*event.Event, wire.Fields, wire.Settings, []string) bool {
	return func(e *event.Event, f wire.Fields, s wire.Settings, keys []string) bool {
		var party event.Party
		switch wire.Directions[wire.Plain(f.Text("direction"))] {
		case wire.Directions[participant]:
			party = f.Party(s, keys[0])
		case wire.Directions[exten]:
			party = f.Party(s, keys[1])
		}
		if party.Raw == "" {
			return false
		}
		if participant == "in" {
			e.NeedCall().From = party
		} else {
			e.NeedCall().To = party
		}
		return true
	}
}

// ringing belongs to the call, all other states to the extension.
func ringing(e *event.Event) {
	if e.Extension != nil && e.Extension.State == "ringing" {
		e.Type = event.CallRinging
	}
}

var incomingCall = wire.Rules{
	{Field: "call.state", Const: event.StateStarted},
	{Field: "call.direction", Const: event.Inbound},
	{Field: "call.callType", Const: string(v1alpha1.CallTypeInbound)},
	{Field: "call.from.number", Keys: []string{"number"}},
}

var outgoingCall = wire.Rules{
	{Field: "call.state", Const: event.StateStarted},
	{Field: "call.direction", Const: event.Outbound},
	{Field: "call.callType", Const: string(v1alpha1.CallTypeOutbound)},
	{Field: "call.to.number", Keys: []string{"number"}},
}

var transfer = wire.Rules{
	{Field: "call.from.number", Keys: []string{"transferred_from"}},
	{Field: "call.to.number", Keys: []string{"transferred_to"}},
	// the sample has transferer, the table transfer
	{Field: "call.agents", Keys: []string{"transferer", "transfer"}, Set: transferer, Note: "one agent, with the number of who transferred"},
}

func transferer(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	by := f.Text(keys...)
	if by != "" {
		e.NeedCall().Agents = []event.Agent{{Number: by}}
	}
	return by != ""
}

var extension = wire.Rules{
	{Field: "extension.number", Keys: []string{"exten", "number"}}, // ExtenRemoved: the table has number
	{Field: "extension.state", Keys: []string{"state"}, Values: extensionStates, Closed: true},
}

var trunk = wire.Rules{
	{Field: "trunk.name", Keys: []string{"trunk_name"}},
	{Field: "trunk.technology", Keys: []string{"trunk_type"}},
	{Field: "trunk.state", Keys: []string{"state"}, As: strings.ToLower},
	{Field: "time", Keys: []string{"date", "last_time"}},
}

// record is what Cdr and CdrQueue share. Samples have starttime, the table of the Cdr page
// start_time.
var record = wire.Rules{
	{Field: "time", Keys: []string{"endtime", "end_time"}},
	{Field: "call.state", Const: event.StateEnded},
	{Field: "call.from.number", Keys: []string{"src"}},
	{Field: "call.to.number", Keys: []string{"dst"}},
	{Field: "call.startTime", Keys: []string{"starttime", "start_time"}},
	{Field: "call.endTime", Keys: []string{"endtime", "end_time"}},
	{Field: "call.durationSeconds", Keys: []string{"duration"}},
	{Field: "call.talkSeconds", Keys: []string{"billsec"}},
	{Field: "call.waitSeconds", Keys: []string{"wait"}},
	{Field: "call.disposition", Keys: []string{"disposition"}, As: wire.DispositionWord, Note: dispositionNote},
	{Field: "call.recording", Keys: []string{"record"}},
}

// dispositionNote: samples have NO ANSWER, the table No Answered.
const dispositionNote = "answered, noAnswer or busy; another word in lower case"

var directions = wire.Words(wire.Directions, map[string]string{"feature": event.Internal})

var callTypes = wire.Words(wire.CallTypes, map[string]string{"feature": string(v1alpha1.CallTypeInternal)})

var cdr = wire.Rules{
	{Field: "call.direction", Keys: []string{"type"}, Closed: true, Values: directions},
	{Field: "call.callType", Keys: []string{"type"}, Closed: true, Values: callTypes},
}

// missed: an incoming call that nobody answered has its own type.
func missed(e *event.Event) {
	if c := e.NeedCall(); c.Direction == event.Inbound && (c.Disposition == wire.NoAnswer || c.Disposition == wire.Busy) {
		e.Type, c.State = event.CallMissed, event.StateMissed
	}
}

var cdrQueue = wire.Rules{
	{Field: "call.answerTime", Keys: []string{"answeredtime"}},
	{Field: "call.ringTime", Keys: []string{"ringtime"}},
	{Field: "call.endedBy", Keys: []string{"hangup"}, As: strings.ToLower},
	{Field: "call.agents", Keys: []string{"detail"}, Set: legs, Note: "one a leg, with its `dst`"},
}

const maxAgents = 100

func legs(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) (found bool) {
	for _, leg := range f.List(keys...) {
		if number := wire.AsFields(leg).Text("dst"); number != "" && len(e.NeedCall().Agents) < maxAgents {
			e.Call.Agents = append(e.Call.Agents, event.Agent{Number: number})
			found = true
		}
	}
	return found
}

// fax: what is one level down is called description when the fax came in, info when it went out.
var fax = wire.Rules{
	{Field: "time", Keys: []string{"date"}},
	{Field: "fax.id", Keys: []string{"fax_id"}},
	{Field: "fax.from.number", Keys: []string{"src"}},
	{Field: "fax.to.number", Keys: []string{"dst"}},
	{Field: "fax.state", Keys: []string{"state"}, As: strings.ToLower},
	{Field: "fax.pages", Keys: []string{"description.FAXPAGES", "info.FAXPAGES"}},
	{Field: "fax.error", Keys: []string{"description.FAXERROR", "info.FAXERROR"}, Note: "the text None stands for success"},
	{Field: "fax.station", Keys: []string{"description.REMOTESTATIONID", "info.REMOTESTATIONID"}},
}

var voicemail = wire.Rules{
	{Field: "time", Keys: []string{"date"}},
	{Field: "voicemail.id", Keys: []string{"id"}},
	{Field: "voicemail.mailbox", Keys: []string{"number"}},
	{Field: "voicemail.state", Keys: []string{"state"}, As: strings.ToLower},
	{Field: "voicemail.durationSeconds", Keys: []string{"duration"}},
	{Field: "voicemail.file", Keys: []string{"filename"}},
	{Field: "voicemail.caller", Keys: []string{"caller"}},
	{Field: "voicemail.message", Keys: []string{"message"}},
	{Field: "voicemail.receiver", Keys: []string{"receiver"}},
}

var survey = wire.Rules{
	{Field: "time", Keys: []string{"date"}},
	{Field: "survey.point", Keys: []string{"point"}},
	{Field: "survey.label", Keys: []string{"label"}},
	{Field: "survey.queue", Keys: []string{"queue"}},
	{Field: "survey.from.number", Keys: []string{"src"}},
	{Field: "survey.to.number", Keys: []string{"dst"}},
}

var campaign = wire.Rules{
	{Field: "time", Keys: []string{"end", "start"}},
	{Field: "campaign.id", Keys: []string{"campaign_id"}},
	{Field: "campaign.name", Keys: []string{"campaign"}},
	{Field: "campaign.number", Keys: []string{"number"}},
	{Field: "campaign.disposition", Keys: []string{"disposition"}, As: wire.DispositionWord, Note: dispositionNote},
	{Field: "campaign.try", Keys: []string{"try"}},
	{Field: "campaign.repeat", Keys: []string{"repeat"}},
	{Field: "campaign.talkSeconds", Keys: []string{"billsec"}},
	{Field: "campaign.waitSeconds", Keys: []string{"wait"}},
	{Field: "campaign.tries", Keys: []string{"tries"}, Note: "as sent"},
}

var reservation = wire.Rules{
	{Field: "time", Keys: []string{"date"}},
	{Field: "queueReservation.queue", Keys: []string{"queue_name"}},
	{Field: "queueReservation.caller", Keys: []string{"caller_id"}},
}
