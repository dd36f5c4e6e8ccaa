package v1alpha1

// AcefonePaths are the last parts of the URLs of Acefone's triggers, by the names that spec.events
// has for them. Acefone's payload does not name its trigger, so each has a URL of its own.
var AcefonePaths = map[string]string{
	"CallReceivedOnServer":    "call-received-on-server",
	"CallAnsweredOnIVR":       "call-answered-on-ivr",
	"CallAnsweredOnRingGroup": "call-answered-on-ring-group",
	"CallAnsweredOnCallQueue": "call-answered-on-call-queue",
	"CallAnsweredByExtension": "call-answered-by-extension",
	"CallAnsweredByCustomer":  "call-answered-by-customer",
	"CallMissed":              "call-missed",
	"CallHangup":              "call-hangup",
	"CallMissedOrAnswered":    "call-missed-or-answered",
	"DTMFOption":              "dtmf-option",
	"DialedOnExtensions":      "dialed-on-extensions",
}
