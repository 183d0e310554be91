variable "name" {
  description = "Prefix of the role's name."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "A name is 2 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "cluster_arn" {
  description = "ARN of the EKS cluster whose pods may have the role. The cluster runs the EKS Pod Identity Agent."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:eks:[a-z0-9-]+:[0-9]{12}:cluster/[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.cluster_arn))
    error_message = "Not the ARN of an EKS cluster, such as arn:aws:eks:eu-west-1:123456789012:cluster/roster."
  }
}

variable "namespace" {
  description = "Kubernetes namespace that the service runs in."
  type        = string
  default     = "roster"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "Not the name of a Kubernetes namespace (RFC 1123 label)."
  }
}

variable "service_account" {
  description = "Kubernetes service account that the service runs as."
  type        = string
  default     = "roster"
  nullable    = false

  validation {
    condition     = length(var.service_account) <= 253 && can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", var.service_account))
    error_message = "Not the name of a Kubernetes service account (RFC 1123 subdomain)."
  }
}

variable "table_arn" {
  description = "ARN of the DynamoDB table of users."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[0-9A-Za-z_.-]{3,255}$", var.table_arn))
    error_message = "Not the ARN of a DynamoDB table, such as arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users."
  }
}

variable "bucket_arn" {
  description = "ARN of the S3 bucket of avatars."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:s3:::[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket_arn))
    error_message = "Not the ARN of an S3 bucket, such as arn:aws:s3:::roster-avatars."
  }
}
