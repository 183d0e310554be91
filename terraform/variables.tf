# The modules check what they are given; here the same is checked for once more,
# so that an error names the variable that was set, whatever is made.

variable "region" {
  description = "AWS region of everything."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2,}(-[a-z]+)+-[0-9]+$", var.region))
    error_message = "Not an AWS region, such as eu-west-1."
  }
}

variable "name" {
  description = "Name of the deployment: everything is named after it and tagged with it. Two deployments in one account have two names."
  type        = string
  default     = "roster"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "A name is 2 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "tags" {
  description = "Tags that everything gets, besides Application and ManagedBy."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !contains(["application", "managedby", "name"], lower(key)) && !startswith(lower(key), "aws:")])
    error_message = "Application, ManagedBy and Name are set here, and tags that begin with aws: belong to AWS."
  }

  # AWS allows 50 tags; the three above and those of Kubernetes need room.
  validation {
    condition     = length(var.tags) <= 40 && alltrue([for key, value in var.tags : length(key) >= 1 && length(key) <= 128 && length(value) <= 256])
    error_message = "At most 40 tags, keys of 1 to 128 characters, values of at most 256."
  }
}

# What is made: by default everything; one of the next two makes it less.

variable "existing_cluster_name" {
  description = "Name of an EKS cluster that there is, in the same region and account, with the EKS Pod Identity Agent. Storage and the pods' role are made for it, and no network, cluster or registry."
  type        = string
  default     = null

  validation {
    condition     = var.existing_cluster_name == null || can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.existing_cluster_name))
    error_message = "Not the name of an EKS cluster."
  }
}

variable "storage_only" {
  description = "Whether to make the table and the bucket and nothing else."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !(var.storage_only && var.existing_cluster_name != null)
    error_message = "Storage alone has no use for a cluster: set storage_only or existing_cluster_name, not both."
  }
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted, and the bucket and the registry while anything is in them. Set to false and apply before destroying."
  type        = bool
  default     = true
  nullable    = false
}

variable "avatar_noncurrent_days" {
  description = "How many days a deleted avatar can be brought back. After that it is gone for good."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.avatar_noncurrent_days >= 1 && var.avatar_noncurrent_days <= 3650 && floor(var.avatar_noncurrent_days) == var.avatar_noncurrent_days
    error_message = "A whole number of days from 1 to 3650."
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

variable "image_repository" {
  description = "Where the image is pulled from, if not from the registry that comes with the whole stack; that is then left out."
  type        = string
  default     = null

  validation {
    condition     = var.image_repository == null || can(regex("^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$", var.image_repository))
    error_message = "A registry and a path without a tag, such as registry.example.com/roster."
  }
}

variable "image_tag" {
  description = "Tag of the image to run. Unset: the chart's own version."
  type        = string
  default     = null

  validation {
    condition     = var.image_tag == null || can(regex("^[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}$", var.image_tag))
    error_message = "Not an image tag."
  }
}

# The rest is about the new network and cluster.

variable "vpc_cidr" {
  description = "IPv4 range of the VPC, from /16 to /20."
  type        = string
  default     = "10.0.0.0/16"
  nullable    = false

  # AWS takes only a range that is written from its first address.
  validation {
    condition     = try("${cidrhost(var.vpc_cidr, 0)}/${split("/", var.vpc_cidr)[1]}", "") == var.vpc_cidr && !strcontains(var.vpc_cidr, ":")
    error_message = "Not an IPv4 range written from its first address, such as 10.0.0.0/16."
  }

  validation {
    condition     = try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 20, false)
    error_message = "The range is from /16, the largest a VPC can have, to /20, so that each zone has a thousand addresses for pods."
  }
}

variable "nat_gateway_per_zone" {
  description = "One NAT gateway a zone instead of one for all: the way out survives the loss of a zone, at three times the price."
  type        = bool
  default     = false
  nullable    = false
}

variable "cluster_admin_arns" {
  description = "IAM roles and users that administer the cluster; at least one with the whole stack. Nobody else gets in, not even whoever creates it."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = var.storage_only || var.existing_cluster_name != null || length(var.cluster_admin_arns) > 0
    error_message = "Without an administrator nobody could deploy to the new cluster: name a role or a user, or set existing_cluster_name or storage_only."
  }

  validation {
    condition     = alltrue([for arn in var.cluster_admin_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[0-9A-Za-z_+=,.@/-]+$", arn))])
    error_message = "Each is the ARN of an IAM role or user, such as arn:aws:iam::123456789012:role/admin. For an assumed role name the role, not the session."
  }
}

variable "cluster_api_cidrs" {
  description = "IPv4 ranges that reach the Kubernetes API from the internet. None: it is reachable from the VPC alone."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.cluster_api_cidrs : try("${cidrhost(cidr, 0)}/${split("/", cidr)[1]}", "") == cidr && !strcontains(cidr, ":")])
    error_message = "Each is an IPv4 range written from its first address, such as 203.0.113.0/24."
  }

  validation {
    condition     = alltrue([for cidr in var.cluster_api_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, false)])
    error_message = "A range wider than /8 limits nothing."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version of the control plane, the nodes and the add-ons. Raise it one minor version at a time."
  type        = string
  default     = "1.35"
  nullable    = false

  validation {
    condition     = can(regex("^1\\.(3[1-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "A minor version from 1.31, the oldest that the chart runs on, such as 1.35."
  }
}

variable "node_instance_types" {
  description = "Instance types of the nodes, all of one architecture and of about the same size."
  type        = list(string)
  default     = ["t3.medium"]
  nullable    = false

  validation {
    condition     = length(var.node_instance_types) > 0 && alltrue([for type in var.node_instance_types : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", type))])
    error_message = "At least one instance type, such as t3.medium."
  }
}

variable "node_architecture" {
  description = "Architecture of the instance types: amd64 or arm64."
  type        = string
  default     = "amd64"
  nullable    = false

  validation {
    condition     = contains(["amd64", "arm64"], var.node_architecture)
    error_message = "amd64 or arm64."
  }
}

variable "node_count" {
  description = "How few and how many nodes there are. The cluster starts with the fewest; an autoscaler may move it in between."
  type = object({
    min = number
    max = number
  })
  default  = { min = 2, max = 6 }
  nullable = false

  validation {
    condition     = var.node_count.min >= 1 && var.node_count.max <= 450 && var.node_count.min <= var.node_count.max && floor(var.node_count.min) == var.node_count.min && floor(var.node_count.max) == var.node_count.max
    error_message = "Whole numbers, 1 <= min <= max <= 450 (the limit of a managed node group)."
  }
}

variable "log_retention_days" {
  description = "How long flow logs and the control plane's logs are kept, in days; one of the periods that CloudWatch Logs offers."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch Logs keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 days."
  }
}
