package event

// Types are all canonical types, in the order of the documentation.
var Types = []Type{
	CallStarted, CallRinging, CallAnswered, CallHeld, CallResumed, CallDTMF, CallTransferred, CallMissed, CallEnded,
	QueueCompleted, RecordingReady, ExtensionState, ExtensionAdded, ExtensionRemoved, TrunkState, TrunkAdded, TrunkRemoved,
	QueueWrapup, QueueReserved, SMSReceived, FaxReceived, FaxSent, VoicemailReceived, VoicemailEmailed, SurveyAnswered,
	CampaignReported, Ping, Other, Unparsed,
}
