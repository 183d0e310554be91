output "helm_values" {
  description = "Values for the chart: terraform output -raw helm_values >values.yaml"

  # Keys are omitted, not null: null would remove the chart's defaults.
  value = yamlencode(merge(
    {
      aws = {
        region        = var.region
        dynamodbTable = module.storage.table_name
        s3Bucket      = module.storage.bucket_name
      }
    },
    local.registry || var.image_repository != null || var.image_tag != null ? {
      image = merge(
        local.registry ? { repository = module.registry[0].repository_url } : {},
        var.image_repository != null ? { repository = var.image_repository } : {},
        var.image_tag != null ? { tag = var.image_tag } : {},
      )
    } : {},
    var.storage_only ? {} : {
      serviceAccount = { name = module.identity[0].service_account }
    },
    # Auto Mode adds a node for a pod that must not share one.
    local.whole_stack ? { nodeSpread = "DoNotSchedule" } : {},
    [for domain in module.domain : {
      publicUrl = "https://${var.domain.name}"
      ingress = {
        enabled   = true
        className = "alb"
        host      = var.domain.name
        # Scheme and TLS policy are those of the IngressClass in cluster.yaml.
        annotations = {
          "alb.ingress.kubernetes.io/certificate-arn"         = domain.certificate_arn
          "alb.ingress.kubernetes.io/healthcheck-path"        = "/readyz"
          "alb.ingress.kubernetes.io/listen-ports"            = jsonencode([{ HTTP = 80 }, { HTTPS = 443 }])
          "alb.ingress.kubernetes.io/ssl-redirect"            = "443"
          "alb.ingress.kubernetes.io/target-group-attributes" = "deregistration_delay.timeout_seconds=30"
        }
      }
    }]...
  ))
}

output "url" {
  description = "URL of the service; null without a domain."
  value       = var.domain == null ? null : "https://${var.domain.name}"
}

output "certificate_arn" {
  description = "ARN of the certificate; null without a domain."
  value       = one(module.domain[*].certificate_arn)
}

output "certificate_validation_record" {
  description = "DNS record that proves control of the domain to ACM; null without a domain. Terraform creates it in the hosted zone, if there is one."
  value       = one(module.domain[*].validation_record)
}

output "namespace" {
  description = "Kubernetes namespace to install the chart into; null without a cluster."
  value       = one(module.identity[*].namespace)
}

output "table_name" {
  description = "Name of the DynamoDB table: DYNAMODB_TABLE of the service."
  value       = module.storage.table_name
}

output "bucket_name" {
  description = "Name of the S3 bucket: S3_BUCKET of the service."
  value       = module.storage.bucket_name
}

output "role_arn" {
  description = "ARN of the role of the pods; null without a cluster."
  value       = one(module.identity[*].role_arn)
}

output "repository_url" {
  description = "Repository of the image, new or image_repository."
  value       = local.registry ? module.registry[0].repository_url : var.image_repository
}

output "cluster_name" {
  description = "Name of the cluster, new or existing; null without a cluster."
  value       = local.cluster_name
}

output "kubeconfig_command" {
  description = "Command that configures kubectl and helm for the cluster; null without a cluster."
  value       = var.storage_only ? null : "aws eks update-kubeconfig --region ${var.region} --name ${local.cluster_name}"
}
