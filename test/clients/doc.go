// Package clients holds receivers that are written with official SDKs, as users write them, and tries a real
// `pbxhook run` with them: what they verify and understand is what pbxhook meant.
package clients
