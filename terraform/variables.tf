variable "region" {
  description = "AWS region of the stack."
  type        = string
}

variable "name" {
  description = "Name of the deployment and prefix of its resources, unique in the account and region."
  type        = string
  default     = "roster"

  # Every resource has a limit and an alphabet of its own; a bucket has the narrowest.
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "2 to 24 lower-case letters, digits and hyphens are required, with a letter first and no hyphen last."
  }
}

variable "tags" {
  description = "Tags of every resource, in addition to Application and ManagedBy. Nodes and load balancers, which EKS creates, do not get them."
  type        = map(string)
  default     = {}
}

# The scope: by default everything is created, with one of the next two less.

variable "existing_cluster_name" {
  description = "Name of an existing EKS cluster in the same region and account. Then no network, cluster or registry is created."
  type        = string
  default     = null
}

variable "storage_only" {
  description = "Create the table and the bucket only."
  type        = bool
  default     = false

  validation {
    condition     = !(var.storage_only && (var.existing_cluster_name != null || var.domain != null))
    error_message = "With storage_only no cluster is used: existing_cluster_name and domain must be unset."
  }
}

variable "deletion_protection" {
  description = "Reject terraform destroy and changes of the scope, and the deletion of table, bucket, registry and cluster. To delete the stack, first apply false."
  type        = bool
  default     = true
}

variable "domain" {
  description = "Host name of the service and, if Route 53 serves it, the ID of its hosted zone. Unset: no certificate and no Ingress."
  type        = object({ name = string, zone_id = optional(string) })
  default     = null
}

variable "avatar_noncurrent_days" {
  description = "Days that a deleted image can be restored."
  type        = number
  default     = 30
}

variable "namespace" {
  description = "Kubernetes namespace of the service."
  type        = string
  default     = "roster"
}

variable "service_account" {
  description = "Kubernetes service account of the service."
  type        = string
  default     = "roster"
}

variable "image_repository" {
  description = "Image repository to pull from, without a tag; required with existing_cluster_name. Unset: a new ECR repository."
  type        = string
  default     = null

  validation {
    condition     = var.image_repository != null || var.existing_cluster_name == null
    error_message = "With existing_cluster_name no registry is created: image_repository is required."
  }
}

variable "image_tag" {
  description = "Tag of the image. Unset: the version of the chart."
  type        = string
  default     = null
}

# The new network and cluster.

variable "vpc_cidr" {
  description = "IPv4 range of the VPC, /16 to /20."
  type        = string
  default     = "10.0.0.0/16"
}

variable "nat_gateway_per_zone" {
  description = "Create one NAT gateway per zone instead of one in all, at three times the price."
  type        = bool
  default     = false
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes, in standard support. Raise it one at a time."
  type        = string
  default     = "1.36"
}

variable "cluster_admin_arns" {
  description = "IAM roles and users that administer the cluster; at least one for a new cluster. Its creator has no access otherwise."
  type        = set(string)
  default     = []
}

variable "namespace_access" {
  description = "IAM roles and users with access to the namespace only: ARN to AmazonEKSAdminPolicy, AmazonEKSEditPolicy or AmazonEKSViewPolicy."
  type        = map(string)
  default     = {}
}

variable "cluster_api_cidrs" {
  description = "IPv4 ranges that reach the Kubernetes API from the internet. Empty: it is reachable from the VPC only."
  type        = set(string)
  default     = []
}

variable "log_retention_days" {
  description = "Days that the logs of the control plane and the network are kept; a period that CloudWatch Logs supports."
  type        = number
  default     = 365
}
