output "helm_values" {
  description = "Values for the chart: terraform output -raw helm_values > values.yaml, then helm install -f values.yaml."

  # Keys are left out rather than null, so that the chart's defaults hold. A role
  # that comes by Pod Identity needs no annotation.
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
  ))
}

output "namespace" {
  description = "Kubernetes namespace to install the chart into; null without a cluster."
  value       = one(module.identity[*].namespace)
}

output "table_name" {
  description = "Name of the DynamoDB table; DYNAMODB_TABLE of the service."
  value       = module.storage.table_name
}

output "bucket_name" {
  description = "Name of the S3 bucket; S3_BUCKET of the service."
  value       = module.storage.bucket_name
}

output "role_arn" {
  description = "ARN of the role that the pods have; null without a cluster."
  value       = one(module.identity[*].role_arn)
}

output "repository_url" {
  description = "Where images are pushed to; null if no registry is made."
  value       = one(module.registry[*].repository_url)
}

output "cluster_name" {
  description = "Name of the cluster, new or existing; null without one."
  value       = local.cluster_arn == null ? null : split("/", local.cluster_arn)[1]
}

output "kubeconfig_command" {
  description = "Command that points kubectl and helm to the cluster; null without one."
  value       = local.cluster_arn == null ? null : "aws eks update-kubeconfig --region ${var.region} --name ${split("/", local.cluster_arn)[1]}"
}
