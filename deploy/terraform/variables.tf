variable "namespace" {
  type    = string
  default = "teleport"
}

variable "image" {
  type        = string
  description = "Image of the event handler in your registry, without a tag."
}

variable "teleport_address" {
  type        = string
  description = "host:port of the Proxy or the Auth Service."
}

variable "identity_secret" {
  type        = string
  description = "Secret with the identity under the key `identity`, in that namespace."
}

variable "sink_secret" {
  type        = string
  description = "Secret with the token of Splunk under the key `token`, in that namespace."
}

variable "splunk_url" {
  type        = string
  description = "As https://splunk.example.com:8088."
}
