# The chart by Terraform's provider for Helm. What differs between your environments is in the variables; every other value of the
# chart (docs/helm.md) can stand in `values`.
terraform {
  required_version = ">= 1.5"
  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = ">= 2.17"
    }
  }
}

resource "helm_release" "event_handler" {
  name             = "teleport-event-handler"
  namespace        = var.namespace
  create_namespace = true
  chart            = "${path.module}/../helm/teleport-event-handler"
  # A release counts as installed when the pod is ready: signed in, and no sink fails.
  wait    = true
  timeout = 600

  values = [yamlencode({
    nameOverride = "teleport-event-handler"
    image        = { repository = var.image }
    teleport = {
      address            = var.teleport_address
      identitySecretName = var.identity_secret
      identitySecretPath = "identity"
    }
    secrets = {
      siem = { secretName = var.sink_secret }
    }
    config = {
      sinks = {
        siem = {
          type       = "splunk-hec"
          url        = var.splunk_url
          token-file = "/etc/teleport-event-handler/secrets/siem/token"
        }
      }
    }
  })]
}
