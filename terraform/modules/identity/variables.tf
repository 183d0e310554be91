variable "name" {
  description = "Prefix of the role's name."
  type        = string
}

variable "cluster_arn" {
  description = "ARN of the EKS cluster whose pods get the role. It runs the EKS Pod Identity Agent."
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the service."
  type        = string
}

variable "service_account" {
  description = "Kubernetes service account of the service."
  type        = string
}

variable "table_arn" {
  description = "ARN of the DynamoDB table of users."
  type        = string
}

variable "bucket_arn" {
  description = "ARN of the S3 bucket of avatars."
  type        = string
}
